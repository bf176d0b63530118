"""Sequences changed base by base until a trained model says of them what one wants."""
