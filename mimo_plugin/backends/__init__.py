"""The place of `mimo_plugin.encoder` before 0.2."""
