"""Benchmarks as configs: a validated YAML file each, with collections, measures, tests and published scores.

`load_config` reads a packaged config by its name, or a file; `config_names` lists the packaged ones.
"""

from mimo_plugin.benchmarks.catalog import config_names
from mimo_plugin.benchmarks.loading import load_config

__all__ = ["config_names", "load_config"]
