"""Pyserini: Java, encoder classes, its commands, BM25. Besides `indexing.exporting`, only this imports it."""
