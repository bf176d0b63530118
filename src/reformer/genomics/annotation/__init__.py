"""Genes along whole chromosomes: what to learn, the model, calling genes from it, and how right they are."""
