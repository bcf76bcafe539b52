"""The place of `OpenVinoRunner` before 0.2; code goes on with `mimo_plugin.encoder.export`."""

from mimo_plugin.encoder.export import OpenVinoRunner

__all__ = ["OpenVinoRunner"]
