"""From documents to hits: vectors on disk, one FAISS index of all languages, searches in it."""
