from mimo_plugin.cli import entry_point

entry_point()
