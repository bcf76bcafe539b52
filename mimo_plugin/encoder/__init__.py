"""Texts to vectors: a checkpoint, what runs it, and how batches are made."""
