"""Statistics of training data: rows kept and dropped, mean lengths, rows per pair of languages."""

from collections import Counter
from collections.abc import Mapping
from itertools import permutations
from pathlib import Path
from typing import TYPE_CHECKING

from mimo_plugin.data.writers import Made
from mimo_plugin.training.data import DataManifest, Format, Pairs, Table, open_pairs, open_table

if TYPE_CHECKING:
    import pandas as pd

_BATCH = 10_000


def report(directory: Path, made: Made, *, statistics: bool) -> str:
    """A command's summary of the data; `statistics` adds `statistics_text`, which reads the data."""
    blocks = [opening(directory, made.new), kept_and_dropped(made.manifest)]
    if statistics:
        pairs = made.manifest.format is Format.PAIRS
        data = open_pairs(directory) if pairs else open_table(directory)
        blocks.append(statistics_text(data))
    return "\n\n".join(blocks)


def opening(directory: Path, new: bool) -> str:
    """Says whether the data was made now."""
    return f"{directory}: {'written' if new else 'finished before from the same sources; left unchanged'}"


def kept_and_dropped(manifest: DataManifest) -> str:
    """A line of totals, then a table: language, rows kept, entries dropped for each reason."""
    what = "pairs" if manifest.format is Format.PAIRS else "rows"
    title = f"{manifest.rows:,} {what} in {len(manifest.languages)} languages, anchor {manifest.anchor}"
    table = counts_table({"kept": manifest.languages, **manifest.dropped})
    return "\n".join([title, table, *negatives_lines(manifest)])


def negatives_lines(manifest: DataManifest) -> list[str]:
    """What is known of mined negatives, one line; none for other data."""
    if (found := manifest.negatives) is None:
        return []
    counts = ", ".join(
        f"{number} in {rows:,} rows" for number, rows in sorted(found.rows.items(), reverse=True)
    )
    missed = f"; {found.missed:,} queries have none, as their own passages were not all among the hits"
    return [f"negatives: {counts}{missed if found.missed else ''}"]


def counts_table(counts: Mapping[str, Mapping[str, int]]) -> str:
    """A table with a row per language and a column per key."""
    langs = sorted(set().union(*counts.values()))
    rows = [[lang or "-", *(f"{found.get(lang, 0):,}" for found in counts.values())] for lang in langs]
    return _aligned(["language", *counts], rows)


def language_figures(data: Pairs | Table) -> "pd.DataFrame":
    """Per language, sorted: `rows`, and the mean length of each text column in characters.

    The data is read once, in bounded memory.
    """
    import pandas as pd

    pairs = isinstance(data, Pairs)
    lang, columns = ("lang", ["text", "anchor"]) if pairs else ("langs", ["queries", "passages"])
    sums = pd.DataFrame()
    for batch in data.dataset.with_format("pandas").iter(_BATCH):
        texts = batch[[lang, *columns]]
        if not pairs:
            texts = texts.explode([lang, *columns], ignore_index=True)
        lengths = texts[columns].apply(lambda column: column.str.len())
        sums = sums.add(lengths.assign(rows=1).groupby(texts[lang]).sum(), fill_value=0)
    return sums[columns].div(sums["rows"], axis=0).assign(rows=sums["rows"].astype(int)).sort_index()


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
    """The text of `--stats`: rows and mean lengths per language; for a table also rows per language pair."""
    figures = language_figures(data)
    columns = [column for column in figures if column != "rows"]
    headers = ["language", "rows", *(f"characters ({column})" for column in columns)]
    lines = [
        [lang, f"{own['rows']:,.0f}", *(f"{own[column]:.1f}" for column in columns)]
        for lang, own in figures.iterrows()
    ]
    blocks = ["Rows and mean length per language", _aligned(headers, lines)]
    if isinstance(data, Table):
        counts = language_pairs(data)
        langs = list(figures.index)
        matrix = [
            [one, *("-" if one == other else f"{counts[one, other]:,}" for other in langs)] for one in langs
        ]
        blocks += ["", "Rows that have both languages (query language down, passage language across)"]
        blocks += [_aligned(["", *langs], matrix)]
    return "\n".join(blocks)


def _aligned(headers: list[str], rows: list[list[str]]) -> str:
    from tabulate import tabulate

    align = ["left", *(["right"] * (len(headers) - 1))]
    return tabulate(rows, headers, colalign=align, disable_numparse=True)
