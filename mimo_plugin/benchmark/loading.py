"""Configs found by name or file, extended, placed on data, limited to languages."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from mimo_plugin.benchmark.config import (
    DATA,
    BenchmarkConfig,
    Fairness,
    chosen_references,
    contradictions,
)
from mimo_plugin.collections.folder import FOLDER_PREFIX, parse_spec
from mimo_plugin.collections.loading import HUB_PREFIX as HUB
from mimo_plugin.collections.loading import found_folder, matching_folders, parse_hub
from mimo_plugin.core.config import Place, YamlFile, read_yaml, shown_place, validate
from mimo_plugin.core.errors import DataError, EnvironmentProblem, MimoError, Problems, UsageError, near
from mimo_plugin.evaluation.options import Gain, split_names

_FOLDER = "eval_configs"
_SUFFIXES = (".yaml", ".yml")
_EXTENDS = "extends"


def configs_directory() -> Path:
    """Directory of the packaged configs: inside an installed package, or at the top of a checkout.

    Raises:
        EnvironmentProblem: they are in neither place.
    """
    package = Path(__file__).resolve().parent.parent
    for directory in (package / _FOLDER, package.parent / _FOLDER):
        if directory.is_dir():
            return directory
    raise EnvironmentProblem(f"{package / _FOLDER} is missing, expected the packaged configs: install again")


def config_names() -> list[tuple[str, str]]:
    """Name and title of every packaged config, in order of names."""
    files = sorted(configs_directory().glob("*.yaml"))
    return [(path.stem, str(read_yaml(path).values.get("title", ""))) for path in files]


def find_config(name: str, beside: Path | None = None) -> Path:
    """The file of a config.

    Args:
        name: of a packaged config, or a file: whatever ends in .yaml or has a slash in it.
        beside: directory that a relative file is looked for in; None is the current one.

    Raises:
        UsageError: there is no such config or file.
    """
    packaged = {path.stem: path for path in configs_directory().glob("*.yaml")}
    if not name.endswith(_SUFFIXES) and "/" not in name:
        if name in packaged:
            return packaged[name]
        raise UsageError(
            f"{name!r}: no such config, expected one of {', '.join(sorted(packaged))}, or a file that ends "
            f"in .yaml{near(name, packaged)}"
        )
    path = (beside or Path()) / Path(name)
    try:
        path = path.expanduser()
        if path.is_file():
            return path
    except (OSError, RuntimeError) as error:  # too long for a name, ~nobody
        raise UsageError(f"{name!r}: {error}, expected a config in YAML") from error
    found = "is a directory" if path.is_dir() else "no such file"
    stem = path.stem
    meant = f"; the packaged config of that name is given without a path: {stem}" if stem in packaged else ""
    raise UsageError(f"{name!r}: {found}, expected a config in YAML{meant}")


def check_data_option(data: str) -> list[str]:
    """Problems of the value of `--data`; `check_data` checks that the folder exists."""
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
            return spec.replace(f"{FOLDER_PREFIX}{DATA}", data.rstrip("/"))
        found = alike(spec, data)
        return f"{FOLDER_PREFIX}{found[0]}" if len(found) == 1 else spec.replace(DATA, data)
    path = spec.removeprefix(FOLDER_PREFIX)
    if not spec.startswith(FOLDER_PREFIX) or path.startswith("~"):
        return spec
    return f"{FOLDER_PREFIX}{base / path}"


def alike(spec: str, data: str) -> list[str]:
    """Folders below `data` with another name for the spec's folder, see `matching_folders`."""
    folder, hash_, split = spec.removeprefix(f"{FOLDER_PREFIX}{DATA}").strip("/").partition("#")
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
    """The `path:` spec of a local copy of a hub repository, DATA/OWNER/NAME or DATA/NAME, if it exists."""
    try:
        hub = parse_hub(spec)
        for name in (hub.repository, hub.repository.rpartition("/")[2]):
            place = Path(data).expanduser() / name
            if place.is_dir():
                split = f"#{hub.split}" if hub.split else ""
                return f"{FOLDER_PREFIX}{place / hub.folder}{split}"
    except (DataError, OSError, RuntimeError):
        pass
    return spec


def shown_collection(spec: str) -> str:
    """A collection's spec, with its folder on the hub if that has another name."""
    if not spec.startswith(HUB):
        return spec
    folder = found_folder(spec)
    return spec if folder == parse_hub(spec).folder else f"{spec} ({folder})"


def at_hand(spec: str) -> bool:
    """Whether a collection can be inspected without a download; those of ir_datasets always can."""
    try:
        return not spec.startswith(HUB) and (not spec.startswith(FOLDER_PREFIX) or bool(parse_spec(spec)))
    except DataError:
        return False


def check_data(config: BenchmarkConfig) -> None:
    """Checks that the folders of the selected collections exist; nothing is read or downloaded.

    Raises:
        DataError: with every missing folder, and where its files come from.
    """
    problems = Problems(DataError)
    specs = [*config.chosen_collections.values(), *filter(None, [config.topics.source])]
    for spec in specs:
        if not spec.startswith(FOLDER_PREFIX):
            continue
        try:
            parse_spec(spec)
        except DataError as error:
            problems.add(str(error) if config.obtain is None else _missing(spec, config.obtain))
    problems.raise_any()


def _missing(spec: str, obtain: str) -> str:
    folder = Path(spec.removeprefix(FOLDER_PREFIX))
    fitting = alike(f"{FOLDER_PREFIX}{DATA}/{folder.name}", str(folder.parent))
    several = f"; {len(fitting)} are alike, expected one: {', '.join(fitting)}" if fitting else ""
    return (
        f"{spec}: no such folder{several}, expected the benchmark's files there: {' '.join(obtain.split())}; "
        "--data DIR (or MIMO_DATA) names the folder around it, --data hub:OWNER/NAME a dataset repository "
        "with it"
    )


def load_config(
    name_or_path: str,
    *,
    languages: Sequence[str] = (),
    data: str | None = None,
    gain: Gain | None = None,
    fairness: Sequence[str] = (),
) -> BenchmarkConfig:
    """Reads a benchmark's config.

    Args:
        name_or_path: of a packaged config (see `config_names`), or a YAML file.
        languages: restricts the config's, `"de,en"` or several such; none are all of them.
        data: folder, or `hub:OWNER/NAME[@REVISION]`, that `{data}` stands for; None is the environment's
            MIMO_DATA, else `data`.
        gain: in place of the config's.
        fairness: cutoffs of PEER and MRC in place of the config's, see `parse_cutoffs`.

    Raises:
        UsageError: with all that is wrong, a line each, where it is in a file with its line.
    """
    from mimo_plugin.evaluation.language import Cutoffs, parse_cutoffs

    problems = Problems(UsageError)
    path = find_config(name_or_path)
    chain = _chain(path)
    values: dict[str, Any] = {"name": path.stem}
    sources: dict[str | int, YamlFile] = {}
    reference_languages: Any = None
    for file in reversed(chain):
        # A file's name is its own, not that of those that extend it.
        own = {key: value for key, value in file.values.items() if file is chain[0] or key != "name"}
        values |= own
        sources |= dict.fromkeys(own, file)
        if "reference" in own:
            reference_languages = values.get("languages")

    def where(place: Place) -> str:
        return sources.get(place[0], chain[0]).where(place) if place else f"{path}:1"

    asked = [name for name in split_names(languages) if name] if languages else []
    data = data or os.environ.get("MIMO_DATA") or "data"
    further: Cutoffs | None = None
    with problems.collect():
        config = validate(BenchmarkConfig, values, where)
    problems.extend(check_data_option(data))
    with problems.collect():
        further = parse_cutoffs(fairness) if fairness else None
    problems.raise_any()
    for place, message in contradictions(config):
        problems.add(f"{where(place)}: {shown_place(place)}: {message}")
    problems.extend(_unknown_languages(asked, config))
    if further is not None and further.deepest(1) > config.depth:
        problems.add(
            f"--fairness: {further.deepest(1)} is deeper than the config's depth, which is {config.depth}, "
            f"expected cutoffs of {config.depth} at most"
        )
    problems.raise_any()
    config = _chosen(config, asked, reference_languages, data, sources["collections"].path.parent)
    changes: dict[str, Any] = {} if gain is None else {"gain": gain}
    if further is not None:
        cutoffs = {"peer": further.peer, "mrc": further.mrc}
        changes["fairness"] = (config.fairness or Fairness()).model_copy(update=cutoffs)
    return config.model_copy(update=changes)


def _chain(path: Path) -> list[YamlFile]:
    """The file and all files that it extends, nearest first."""
    chain: list[YamlFile] = []
    seen: list[Path] = []
    while True:
        file = read_yaml(path)
        chain.append(file)
        seen.append(path.resolve())
        parent = file.values.get(_EXTENDS)
        if parent is None:
            return chain
        where = f"{file.where((_EXTENDS,))}: {_EXTENDS}"
        if not isinstance(parent, str):
            raise UsageError(f"{where}: expected the name of one config, or a file that ends in .yaml")
        try:
            path = find_config(parent, path.parent)
        except MimoError as error:
            raise UsageError(f"{where}: {error}") from error
        if path.resolve() in seen:
            names = " -> ".join(one.name for one in [*seen, path])
            raise UsageError(f"{where}: goes round in a circle ({names}), expected a config that ends it")


def _unknown_languages(asked: Sequence[str], config: BenchmarkConfig) -> list[str]:
    """Problems of languages that a caller selects from those of the config."""
    known = list(config.languages) or config.known_languages
    return [
        f"--languages: {name!r} is not in this benchmark, expected some of {', '.join(known)}"
        f"{near(name, known)}"
        for name in dict.fromkeys(asked)
        if known and name not in known
    ]


def _chosen(
    config: BenchmarkConfig, asked: Sequence[str], reference_languages: Any, data: str, base: Path
) -> BenchmarkConfig:
    """The config with its collections placed on data, limited to languages.

    Args:
        reference_languages: the `languages` of the file with the published scores.
        base: directory that relative paths start from.
    """
    chosen = tuple(asked) or config.languages
    if isinstance(config.collections, tuple):
        languages = tuple(dict.fromkeys(chosen))
        collections: Any = tuple(placed(spec, data, base) for spec in config.collections)
    else:
        languages = tuple(name for name in config.collections if not chosen or name in chosen)
        collections = {name: placed(spec, data, base) for name, spec in config.collections.items()}
    published = set(reference_languages or config.known_languages)
    topics = config.topics
    if topics.source is not None:
        topics = topics.model_copy(update={"source": placed(topics.source, data, base)})
    return config.model_copy(
        update={
            "collections": collections,
            "topics": topics,
            "languages": languages,
            "reference": chosen_references(config.reference, languages, set(languages) == published),
        }
    )


def check_languages(config: BenchmarkConfig, found: Iterable[str]) -> None:
    """Checks the selected languages and those of the published scores against the collections.

    Args:
        found: languages of the documents or queries of the chosen collections.

    Raises:
        UsageError: with every language that is not there.
    """
    known = sorted({language for language in found if language})
    expected = f"one of {', '.join(known)}" if known else "documents that say their language"
    problems = Problems(UsageError)
    for language in config.languages:
        if language not in known:
            problems.add(
                f"{config.name}: the collections have nothing in {language!r}, expected {expected}"
                f"{near(language, known)}"
            )
    queried = {*known, config.topics.lang}
    for reference in config.reference:
        for language in reference.per_language:
            if language not in queried and language not in config.languages:
                problems.add(
                    f"{config.name}: {reference.system} has a published score in {language!r}, which the "
                    f"collections do not have, expected {expected}{near(language, known)}"
                )
    problems.raise_any()
