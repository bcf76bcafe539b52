"""The parts that import Pyserini; with `indexing.exporting` the only ones."""
