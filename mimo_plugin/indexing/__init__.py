"""Vectors on disk, FAISS indexes of several languages, and searches in them."""
