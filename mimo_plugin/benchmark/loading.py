"""Benchmark configs: found by name or file, extended, limited to languages, with the paths of their data."""

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
from mimo_plugin.benchmark.settings import configs_directory
from mimo_plugin.collections.folder import FOLDER_PREFIX, parse_spec
from mimo_plugin.collections.loading import HUB_PREFIX as HUB
from mimo_plugin.collections.loading import found_folder, matching_folders, parse_hub
from mimo_plugin.core.config import Place, YamlFile, read_yaml, shown_place, validate
from mimo_plugin.core.errors import DataError, MimoError, Problems, UsageError, near
from mimo_plugin.evaluation.options import Gain, split_names

_SUFFIXES = (".yaml", ".yml")
_EXTENDS = "extends"


def config_names() -> list[tuple[str, str]]:
    """Name and title of every packaged config, in order of names."""
    files = sorted(configs_directory().glob("*.yaml"))
    return [(path.stem, str(read_yaml(path).values.get("title", ""))) for path in files]


def find_config(name: str, beside: Path | None = None) -> Path:
    """The file of a config.

    Args:
        name: of a packaged config, or a file: whatever ends in .yaml or has a slash in it.
        beside: directory that relative files start from; None is the current directory.

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
        found = "is a directory" if path.is_dir() else "no such file"
    except (OSError, RuntimeError) as error:  # A name that is too long, or an unknown ~user.
        found = str(error)
    stem = path.stem
    hint = f"; the packaged config of that name is given without a path: {stem}" if stem in packaged else ""
    raise UsageError(f"{name!r}: {found}, expected a config in YAML{hint}")


def _check_data_option(data: str) -> None:
    if data.startswith(HUB):
        try:
            hub = parse_hub(data)
        except DataError as error:
            raise UsageError(f"--data {error}") from error
        if hub.split:
            raise UsageError(f"--data {data}: found a split, expected hub:OWNER/NAME")


def _resolved(spec: str, data: str, base: Path) -> str:
    """A collection's spec as `load` takes it.

    Args:
        data: value of `{data}`; such a folder may also hold copies of hub repositories, by their names.
        base: directory of the config, which its other relative paths start from.
    """
    if spec.startswith(HUB):
        return spec if data.startswith(HUB) else _local_copy(spec, data)
    if DATA in spec:
        if data.startswith(HUB):
            return spec.replace(f"{FOLDER_PREFIX}{DATA}", data.rstrip("/"))
        found = _similar_folders(spec, data)
        return f"{FOLDER_PREFIX}{found[0]}" if len(found) == 1 else spec.replace(DATA, data)
    path = spec.removeprefix(FOLDER_PREFIX)
    if not spec.startswith(FOLDER_PREFIX) or path.startswith("~"):
        return spec
    return f"{FOLDER_PREFIX}{base / path}"


def _similar_folders(spec: str, data: str) -> list[str]:
    """Folders below `data` whose names match the spec's folder, see `matching_folders`."""
    folder, hash_, split = spec.removeprefix(f"{FOLDER_PREFIX}{DATA}").strip("/").partition("#")
    try:
        top = Path(data).expanduser()
        if (top / folder).is_dir():
            return []
        below = [path for pattern in ("*", "*/*") for path in top.glob(f"{pattern}/corpus.*")]
    except (OSError, RuntimeError):
        return []
    names = [path.parent.relative_to(top).as_posix() for path in below]
    return [f"{Path(data) / name}{hash_}{split}" for name in matching_folders(names, folder)]


def _local_copy(spec: str, data: str) -> str:
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
    """A collection's spec, with its folder on the hub where the name differs."""
    if not spec.startswith(HUB):
        return spec
    folder = found_folder(spec)
    return spec if folder == parse_hub(spec).folder else f"{spec} ({folder})"


def at_hand(spec: str) -> bool:
    """Whether a collection can be inspected without a download."""
    try:
        return not spec.startswith(HUB) and (not spec.startswith(FOLDER_PREFIX) or bool(parse_spec(spec)))
    except DataError:
        return False


def check_data(config: BenchmarkConfig) -> None:
    """Checks that the folders of the selected collections exist; nothing is read or downloaded.

    Raises:
        DataError: with every missing folder, and where to get its files.
    """
    problems = Problems(DataError)
    specs = [*config.chosen_collections.values(), *filter(None, [config.topics.source])]
    for spec in (one for one in specs if one.startswith(FOLDER_PREFIX)):
        try:
            parse_spec(spec)
        except DataError as error:
            problems.add(str(error) if config.obtain is None else _missing_folder(spec, config.obtain))
    problems.raise_any()


def _missing_folder(spec: str, obtain: str) -> str:
    folder = Path(spec.removeprefix(FOLDER_PREFIX))
    found = _similar_folders(f"{FOLDER_PREFIX}{DATA}/{folder.name}", str(folder.parent))
    several = f"; {len(found)} folders match, expected one: {', '.join(found)}" if found else ""
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
        name_or_path: name of a packaged config (see `config_names`), or a YAML file.
        languages: a part of the config's languages, `"de,en"` or several such; empty selects all.
        data: value of `{data}`, a folder or `hub:OWNER/NAME[@REVISION]`; None is the environment's
            MIMO_DATA, else `data`.
        gain: replaces the config's.
        fairness: cutoffs of PEER and MRC that replace the config's, see `parse_cutoffs`.

    Raises:
        UsageError: with every problem of the config and the arguments, one per line.
    """
    from mimo_plugin.evaluation.language import Cutoffs, parse_cutoffs

    problems = Problems(UsageError)
    path = find_config(name_or_path)
    chain = _chain(path)
    values: dict[str, Any] = {"name": path.stem}
    sources: dict[str | int, YamlFile] = {}
    reference_languages: Any = None
    for file in reversed(chain):
        # A config does not inherit its name.
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
    with problems.collect():
        _check_data_option(data)
    with problems.collect():
        further = parse_cutoffs(fairness) if fairness else None
    problems.raise_any()
    for place, message in contradictions(config):
        problems.add(f"{where(place)}: {shown_place(place)}: {message}")
    known = list(config.languages) or config.known_languages
    for name in dict.fromkeys(asked):
        if known and name not in known:
            expected = f"expected some of {', '.join(known)}"
            problems.add(f"--languages: {name!r} is not in this benchmark, {expected}{near(name, known)}")
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
            raise UsageError(f"{where}: is circular ({names}), expected a chain that ends")


def _chosen(
    config: BenchmarkConfig, asked: Sequence[str], reference_languages: Any, data: str, base: Path
) -> BenchmarkConfig:
    """The config with resolved collections, limited to languages.

    Args:
        reference_languages: the `languages` of the file with the published scores.
        base: directory that relative paths start from.
    """
    chosen = tuple(asked) or config.languages
    if isinstance(config.collections, tuple):
        languages = tuple(dict.fromkeys(chosen))
        collections: Any = tuple(_resolved(spec, data, base) for spec in config.collections)
    else:
        languages = tuple(name for name in config.collections if not chosen or name in chosen)
        collections = {name: _resolved(spec, data, base) for name, spec in config.collections.items()}
    published = set(reference_languages or config.known_languages)
    topics = config.topics
    if topics.source is not None:
        topics = topics.model_copy(update={"source": _resolved(topics.source, data, base)})
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
        found: languages of the documents or queries of the selected collections.

    Raises:
        UsageError: with every missing language.
    """
    known = sorted({language for language in found if language})
    expected = f"one of {', '.join(known)}" if known else "documents with a language"
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
