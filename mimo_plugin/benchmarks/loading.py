"""From a name or a file to a config: what it extends, its fields, the languages and data that are chosen."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mimo_plugin.benchmarks.catalog import find_config
from mimo_plugin.benchmarks.checks import contradictions, unknown_languages
from mimo_plugin.benchmarks.choices import Gain
from mimo_plugin.benchmarks.data import check_data_option, placed
from mimo_plugin.benchmarks.reading import Source, read_source
from mimo_plugin.benchmarks.references import chosen_references
from mimo_plugin.benchmarks.schema import BenchmarkConfig, Fairness
from mimo_plugin.benchmarks.validation import EXTENDS, validate
from mimo_plugin.errors import MimoError, Problems, UsageError
from mimo_plugin.evaluation.choices import split_names

if TYPE_CHECKING:
    from mimo_plugin.evaluation.language_bias import Cutoffs

# What is a file's own, not those' that extend it.
_OWN = ("name", EXTENDS)


@dataclass(frozen=True)
class _Merged:
    """Attributes:
    values: of a file and those that it extends; a key takes the place of an extended file's.
    sources: key -> the file that it comes from.
    reference_languages: the languages that were chosen where the references stand; None is all.
    """

    values: dict[str, Any]
    sources: dict[str, Source]
    reference_languages: Any


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
    problems = Problems(UsageError)
    path = find_config(name_or_path)
    chain, whole = _chain(path, problems)
    merged = _merge(chain)
    main = chain[0]
    written = {
        place: text
        for key, source in merged.sources.items()
        for place, text in source.written.items()
        if place[0] == key
    }
    values = {"name": path.stem, **merged.values}
    good, faults = validate(values, written)
    faults.extend(contradictions(good, values))
    placed_faults = []
    for place, message in faults:
        # What is missing may stand in a file that could not be read.
        if place or whole:
            source = merged.sources.get(str(place[0]), main) if place else main
            placed_faults.append((source.path, source.line(place), message))
    order = [source.path for source in chain]
    placed_faults.sort(key=lambda fault: (order.index(fault[0]), fault[1]))
    problems.extend(f"{file}:{line}: {message}" for file, line, message in placed_faults)
    asked = [name for name in split_names(languages) if name] if languages else []
    problems.extend(unknown_languages(asked, good))
    data = data or os.environ.get("MIMO_DATA") or "data"
    problems.extend(check_data_option(data))
    further = _cutoffs(fairness, good, problems)
    problems.raise_any()
    config = _chosen(BenchmarkConfig(**good), asked, merged, data)
    if gain is not None:
        config = config.model_copy(update={"gain": gain})
    if further is not None:
        cutoffs = (config.fairness or Fairness()).model_copy(
            update={"peer": further.peer, "mrc": further.mrc}
        )
        config = config.model_copy(update={"fairness": cutoffs})
    return config


def _cutoffs(texts: Sequence[str], good: Mapping[str, Any], problems: Problems) -> "Cutoffs | None":
    """What a caller asks for, if anything; nothing is deeper than runs are."""
    from mimo_plugin.evaluation.language_bias import parse_cutoffs

    if not texts:
        return None
    try:
        found = parse_cutoffs(texts)
    except UsageError as error:
        problems.extend(str(error).splitlines())
        return None
    depth = good.get("depth", BenchmarkConfig.model_fields["depth"].default)
    if found.deepest(1) > depth:
        problems.add(
            f"--fairness: {found.deepest(1)} is deeper than the config's depth, which is {depth}, expected "
            f"cutoffs of {depth} at most"
        )
    return found


def _chain(path: Path, problems: Problems) -> tuple[list[Source], bool]:
    """A file, the one that it extends, and so on; and whether all of them could be read."""
    chain: list[Source] = []
    seen: list[Path] = []
    while True:
        source = read_source(path, problems)
        chain.append(source)
        seen.append(path.resolve())
        if EXTENDS not in source.values:
            return chain, all(one.whole for one in chain)
        where = f"{source.path}:{source.line((EXTENDS,))}: {EXTENDS}"
        parent = source.values[EXTENDS]
        if not isinstance(parent, str):
            problems.add(f"{where}: expected the name of one config, or a file that ends in .yaml")
            return chain, False
        try:
            path = find_config(parent, source.path.parent)
        except MimoError as error:
            problems.add(f"{where}: {error}")
            return chain, False
        if path.resolve() in seen:
            names = " -> ".join(file.name for file in [*seen, path])
            problems.add(f"{where}: goes round in a circle ({names}), expected a config that ends it")
            return chain, False


def _merge(chain: Sequence[Source]) -> _Merged:
    values: dict[str, Any] = {}
    sources: dict[str, Source] = {}
    reference_languages: Any = None
    for source in reversed(chain):
        for key, value in source.values.items():
            if (source is not chain[0] and key in _OWN) or key == EXTENDS:
                continue
            values[key] = value
            sources[key] = source
        if "reference" in source.values:
            reference_languages = values.get("languages")
    return _Merged(values, sources, reference_languages)


def _chosen(config: BenchmarkConfig, asked: Sequence[str], merged: _Merged, data: str) -> BenchmarkConfig:
    chosen = tuple(asked) or config.languages
    base = merged.sources["collections"].path.parent
    if isinstance(config.collections, tuple):
        languages = tuple(dict.fromkeys(chosen))
        collections: Any = tuple(placed(spec, data, base) for spec in config.collections)
    else:
        languages = tuple(name for name in config.collections if not chosen or name in chosen)
        collections = {name: placed(spec, data, base) for name, spec in config.collections.items()}
    same = set(languages) == _published(config, merged.reference_languages)
    topics = config.topics
    if topics.source is not None:
        topics = topics.model_copy(update={"source": placed(topics.source, data, base)})
    update: Mapping[str, Any] = {
        "collections": collections,
        "topics": topics,
        "languages": languages,
        "reference": chosen_references(config.reference, languages, same),
    }
    return config.model_copy(update=dict(update))


def _published(config: BenchmarkConfig, chosen: Any) -> set[str]:
    """The languages that published averages are over; `chosen` is the `languages` of the file with them."""
    if isinstance(chosen, list) and chosen:
        return {str(name) for name in chosen}
    return set() if isinstance(config.collections, tuple) else set(config.collections)
