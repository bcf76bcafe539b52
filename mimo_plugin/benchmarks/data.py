"""Where a benchmark's own files lie: what `{data}` stands for, and whether they are there."""

from pathlib import Path

from mimo_plugin.benchmarks.fields import DATA
from mimo_plugin.benchmarks.schema import BenchmarkConfig
from mimo_plugin.collections.folder import PREFIX, parse_spec
from mimo_plugin.collections.hub import PREFIX as HUB
from mimo_plugin.collections.hub import found_folder, parse_hub
from mimo_plugin.collections.named import matching_folders
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
        data: what `{data}` stands for; a folder also holds copies of the hub's repositories, by their names.
        base: directory of the config, which its other relative paths start from.
    """
    if spec.startswith(HUB):
        return spec if data.startswith(HUB) else _kept(spec, data)
    if DATA in spec:
        if data.startswith(HUB):
            return spec.replace(f"{PREFIX}{DATA}", data.rstrip("/"))
        found = alike(spec, data)
        return f"{PREFIX}{found[0]}" if len(found) == 1 else spec.replace(DATA, data)
    path = spec.removeprefix(PREFIX)
    if not spec.startswith(PREFIX) or path.startswith("~"):
        return spec
    return f"{PREFIX}{base / path}"


def alike(spec: str, data: str) -> list[str]:
    """Folders below `data` that stand for the one of the spec, see `matching_folders`."""
    folder, hash_, split = spec.removeprefix(f"{PREFIX}{DATA}").strip("/").partition("#")
    top = Path(data)
    try:
        if (top.expanduser() / folder).is_dir():
            return []
        below = [path for pattern in ("*", "*/*") for path in top.expanduser().glob(f"{pattern}/corpus.*")]
    except (OSError, RuntimeError):
        return []
    names = [path.parent.relative_to(top.expanduser()).as_posix() for path in below]
    return [f"{top / name}{hash_}{split}" for name in matching_folders(names, folder)]


def _kept(spec: str, data: str) -> str:
    """The `path:` spec of a copy of a hub's repository, DATA/OWNER/NAME or DATA/NAME, where there is one."""
    try:
        hub = parse_hub(spec)
        for name in (hub.repository, hub.repository.rpartition("/")[2]):
            place = Path(data).expanduser() / name
            if place.is_dir():
                split = f"#{hub.split}" if hub.split else ""
                return f"{PREFIX}{place / hub.folder}{split}"
    except (DataError, OSError, RuntimeError):
        pass
    return spec


def shown_collection(spec: str) -> str:
    """A collection's spec, and the folder that was found for it on the hub where it is called otherwise."""
    if not spec.startswith(HUB):
        return spec
    folder = found_folder(spec)
    return spec if folder == parse_hub(spec).folder else f"{spec} ({folder})"


def at_hand(spec: str) -> bool:
    """Whether a collection can be looked at without fetching it; one of ir_datasets' always can."""
    try:
        return not spec.startswith(HUB) and (not spec.startswith(PREFIX) or bool(parse_spec(spec)))
    except DataError:
        return False


def check_data(config: BenchmarkConfig) -> None:
    """Checks that the folders of a config's chosen collections are there; nothing is read or fetched.

    Raises:
        DataError: with every folder that is not, and where its files come from.
    """
    problems = Problems(DataError)
    specs = [*config.chosen_collections.values(), *filter(None, [config.topics.source])]
    for spec in specs:
        if not spec.startswith(PREFIX):
            continue
        try:
            parse_spec(spec)
        except DataError as error:
            problems.add(str(error) if config.obtain is None else _missing(spec, config.obtain))
    problems.raise_any()


def _missing(spec: str, obtain: str) -> str:
    folder = Path(spec.removeprefix(PREFIX))
    fitting = alike(f"{PREFIX}{DATA}/{folder.name}", str(folder.parent))
    several = f"; {len(fitting)} are alike, expected one: {', '.join(fitting)}" if fitting else ""
    return (
        f"{spec}: no such folder{several}, expected the benchmark's files there: {' '.join(obtain.split())}; "
        "--data DIR (or MIMO_DATA) names the folder around it, --data hub:OWNER/NAME a dataset repository "
        "with it"
    )
