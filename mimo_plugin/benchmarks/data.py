"""Where a benchmark's own files lie: what `{data}` stands for, and whether they are there."""

from pathlib import Path

from mimo_plugin.benchmarks.fields import DATA
from mimo_plugin.benchmarks.schema import BenchmarkConfig
from mimo_plugin.collections.folder import PREFIX, parse_spec
from mimo_plugin.collections.hub import PREFIX as HUB
from mimo_plugin.collections.hub import parse_hub
from mimo_plugin.errors import DataError, Problems


def check_data_option(data: str) -> list[str]:
    """What is wrong with the value of `--data`; whether a folder is there is `check_data`'s to say."""
    if not data.startswith(HUB):
        return []
    try:
        hub = parse_hub(data)
    except DataError as error:
        return [f"--data {error}"]
    return [f"--data {data}: found a split, expected hub:OWNER/NAME"] if hub.split else []


def placed(spec: str, data: str, base: Path) -> str:
    """A collection's spec as `load` takes it.

    Args:
        data: what `{data}` stands for.
        base: directory of the config, which its other relative paths start from.
    """
    if DATA in spec:
        if data.startswith(HUB):
            return spec.replace(f"{PREFIX}{DATA}", data.rstrip("/"))
        return spec.replace(DATA, data)
    path = spec.removeprefix(PREFIX)
    if not spec.startswith(PREFIX) or path.startswith("~"):
        return spec
    return f"{PREFIX}{base / path}"


def check_data(config: BenchmarkConfig) -> None:
    """Checks that the folders of a config's chosen collections are there; nothing is read or fetched.

    Raises:
        DataError: with every folder that is not, and where its files come from.
    """
    problems = Problems(DataError)
    for spec in config.chosen_collections.values():
        if not spec.startswith(PREFIX):
            continue
        try:
            parse_spec(spec)
        except DataError as error:
            problems.add(str(error) if config.obtain is None else _missing(spec, config.obtain))
    problems.raise_any()


def _missing(spec: str, obtain: str) -> str:
    return (
        f"{spec}: no such folder, expected the benchmark's files there: {' '.join(obtain.split())}; --data "
        "DIR (or MIMO_DATA) names the folder around it, --data hub:OWNER/NAME a dataset repository with it"
    )
