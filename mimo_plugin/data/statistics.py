"""What is in training data, in figures: what was kept and dropped, lengths, and the pairs of languages."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import TYPE_CHECKING

from mimo_plugin.data.writers import Made
from mimo_plugin.training.data import DataManifest, Format, Pairs, Table, open_pairs, open_table

if TYPE_CHECKING:
    import pyarrow as pa

_BATCH = 10_000


@dataclass(frozen=True)
class LanguageFigures:
    """Attributes:
    rows: with a text in the language.
    characters: column -> mean length of its texts, in characters.
    """

    rows: int
    characters: dict[str, float]


def report(directory: Path, made: Made, *, statistics: bool) -> str:
    """What a command prints when the data is there; with `statistics_text`, the data is read."""
    blocks = [opening(directory, made.new), kept_and_dropped(made.manifest)]
    if statistics:
        pairs = made.manifest.format is Format.PAIRS
        data = open_pairs(directory) if pairs else open_table(directory)
        blocks.append(statistics_text(data))
    return "\n\n".join(blocks)


def opening(directory: Path, new: bool) -> str:
    """A line that says whether the data was made now."""
    return f"{directory}: {'written' if new else 'finished before, made from the same; left as it is'}"


def kept_and_dropped(manifest: DataManifest) -> str:
    """A line on the whole, then a table: language, rows kept, entries dropped for each reason."""
    what = "pairs" if manifest.format is Format.PAIRS else "rows"
    title = f"{manifest.rows:,} {what} in {len(manifest.languages)} languages, anchor {manifest.anchor}"
    return f"{title}\n{counts_table({'kept': manifest.languages, **manifest.dropped})}"


def counts_table(counts: Mapping[str, Mapping[str, int]]) -> str:
    """A line a language, a column a key."""
    langs = sorted(set().union(*counts.values()))
    rows = [[lang or "-", *(f"{found.get(lang, 0):,}" for found in counts.values())] for lang in langs]
    return _aligned(["language", *counts], rows)


def language_figures(data: Pairs | Table) -> dict[str, LanguageFigures]:
    """Rows and mean lengths per language, sorted; reads the data once, in bounded memory."""
    import pyarrow as pa
    import pyarrow.compute as pc

    columns = ("text", "anchor") if isinstance(data, Pairs) else ("queries", "passages")
    rows: Counter[str] = Counter()
    characters = {column: Counter[str]() for column in columns}
    for batch in data.dataset.with_format("arrow").iter(_BATCH):
        langs = _flat(batch, "lang" if isinstance(data, Pairs) else "langs")
        lengths = {column: pc.utf8_length(_flat(batch, column)) for column in columns}
        sums = pa.table({"lang": langs, **lengths}).group_by("lang")
        for found in sums.aggregate(
            [("lang", "count"), *((column, "sum") for column in columns)]
        ).to_pylist():
            rows[found["lang"]] += found["lang_count"]
            for column in columns:
                characters[column][found["lang"]] += found[f"{column}_sum"]
    return {
        lang: LanguageFigures(count, {column: characters[column][lang] / count for column in columns})
        for lang, count in sorted(rows.items())
    }


def language_pairs(table: Table) -> dict[tuple[str, str], int]:
    """(query language, passage language) -> rows that have both, for every ordered pair of languages."""
    sets: Counter[tuple[str, ...]] = Counter()
    for batch in table.dataset.with_format("arrow").iter(_BATCH):
        sets.update(map(tuple, batch["langs"].to_pylist()))
    counts = dict.fromkeys(permutations(sorted(table.manifest.languages), 2), 0)
    for langs, rows in sets.items():
        for pair in permutations(langs, 2):
            counts[pair] += rows
    return counts


def statistics_text(data: Pairs | Table) -> str:
    """What `--stats` prints: per language rows and mean lengths; of a table also per pair of languages."""
    figures = language_figures(data)
    columns = list(next(iter(figures.values())).characters)
    headers = ["language", "rows", *(f"characters ({column})" for column in columns)]
    lines = [
        [lang, f"{own.rows:,}", *(f"{own.characters[column]:.1f}" for column in columns)]
        for lang, own in figures.items()
    ]
    blocks = ["Rows and mean length per language", _aligned(headers, lines)]
    if isinstance(data, Table):
        counts = language_pairs(data)
        langs = list(figures)
        matrix = [
            [one, *("-" if one == other else f"{counts[one, other]:,}" for other in langs)] for one in langs
        ]
        blocks += ["", "Rows that have both languages (query language down, passage language across)"]
        blocks += [_aligned(["", *langs], matrix)]
    return "\n".join(blocks)


def _flat(batch: "pa.Table", column: str) -> "pa.ChunkedArray":
    import pyarrow as pa
    import pyarrow.compute as pc

    values = batch[column]
    return pc.list_flatten(values) if pa.types.is_list(values.type) else values


def _aligned(headers: list[str], rows: list[list[str]]) -> str:
    from tabulate import tabulate

    align = ["left", *(["right"] * (len(headers) - 1))]
    return tabulate(rows, headers, colalign=align, disable_numparse=True)
