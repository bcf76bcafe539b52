"""The parts that import Pyserini; with `index.lucene` the only ones."""
