"""Configuration, models and their heads."""
