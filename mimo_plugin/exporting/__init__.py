"""Vectors in the formats of other tools: Lucene, JSON Lines, Parquet."""

from mimo_plugin.exporting.job import Exported, Format, export_vectors

__all__ = ["Exported", "Format", "export_vectors"]
