"""Sentence similarity: correlation of an encoder's cosines with gold scores, for `mimo analyze --sts`."""

import csv
import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from pydantic import Field

from mimo_plugin.benchmark.settings import Role
from mimo_plugin.benchmark.texts import NamedEncoder
from mimo_plugin.collections.records import usual_language
from mimo_plugin.collections.rows import Row, get_optional, get_text, get_value, open_binary, table_rows
from mimo_plugin.core.config import ResultRecord
from mimo_plugin.core.environment import bar
from mimo_plugin.core.errors import DataError, Problems
from mimo_plugin.core.table import Column, Table, count, number, words

if TYPE_CHECKING:
    import numpy as np

    from mimo_plugin.encoder.options import EncoderOptions

ALL = "all"
_CONFIDENCE = 0.95
_RESAMPLES = 2_000
# Numbers that are ranked at once, which bounds memory.
_AT_ONCE = 1 << 22


class DifferenceOfRho(ResultRecord):
    """Spearman's rho minus that of the first encoder, with the interval of a paired bootstrap."""

    value: float
    low: float | None
    high: float | None


class CorrelationResult(ResultRecord):
    """Correlation of cosines with gold scores; None where one of them does not vary.

    Attributes:
        low, high: 95 % interval of Spearman's rho.
        difference: None for the first encoder.
    """

    pairs: int
    spearman: float | None
    low: float | None
    high: float | None
    pearson: float | None
    difference: DifferenceOfRho | None = Field(default=None, exclude_if=lambda found: found is None)


class SimilarityResult(ResultRecord):
    """A file of sentence pairs.

    Attributes:
        role: texts that the sentences were encoded as.
        encoders: encoder -> "all" or languages, such as de-en -> correlation.
    """

    file: str
    role: Role
    seed: int
    encoders: Mapping[str, Mapping[str, CorrelationResult]]


class SentencePairs(NamedTuple):
    """Sentence pairs of a file, with gold scores of any range, and the languages of each, "" if unknown."""

    path: Path
    first: list[str]
    second: list[str]
    gold: list[float]
    languages: list[str]

    @property
    def sentences(self) -> list[str]:
        """The distinct sentences."""
        return list(dict.fromkeys([*self.first, *self.second]))


def name_files(files: Sequence[Path]) -> dict[str, Path]:
    """Names files by the part before the first dot, and by their path if that is not unique."""
    stems = [path.name.partition(".")[0] for path in files]
    return {
        stem if stems.count(stem) == 1 else str(path): path for stem, path in zip(stems, files, strict=True)
    }


def read_sentence_pairs(path: Path) -> SentencePairs:
    """Reads pairs from TSV or CSV with a header, JSON Lines (each also with .gz) or Parquet.

    Columns: `sentence1`, `sentence2`, `score`; optionally `lang1` and `lang2`, or `lang`, as in de or de-en.

    Raises:
        DataError: with the problems of all rows, or there are fewer than two rows.
    """
    with Problems(stop=True) as faults:
        pairs = list(faults.convert(_rows(path, faults), _pair))
    if len(pairs) < 2:
        raise DataError(f"{path}: {len(pairs)} sentence pairs, expected two or more")
    first, second, gold, languages = map(list, zip(*pairs, strict=True))
    return SentencePairs(path, first, second, gold, languages)


def _rows(path: Path, faults: Problems) -> Iterator[Row]:
    if not path.is_file():
        faults.add(f"{path}: no such file, expected sentence pairs as TSV, CSV, JSON Lines or Parquet")
    elif path.name.removesuffix(".gz").endswith(".csv"):
        try:
            with open_binary(path) as file, io.TextIOWrapper(file, "utf-8-sig", newline="") as text:
                reader = csv.DictReader(text, strict=True)
                for record in reader:
                    yield f"{path}:{reader.line_num}", record
        except (csv.Error, OSError, EOFError, UnicodeDecodeError) as error:
            faults.add(
                f"{path}: not whole CSV in UTF-8 ({error}), expected a header and rows: fetch it again"
            )
    else:
        yield from table_rows((path,), faults)


def _pair(row: Row) -> tuple[str, str, float, str]:
    where, record = row
    sentences = [get_text(record, key, where) for key in ("sentence1", "sentence2")]
    value = get_value(record, "score", where)
    try:
        score = float(value)
    except (TypeError, ValueError):
        score = float("nan")
    if not all(map(str.strip, sentences)) or not isfinite(score):
        raise DataError(f"{where}: {sentences} with the score {value!r}, expected two texts and a number")
    codes = [get_optional(record, key, where) for key in ("lang1", "lang2")]
    languages = "-".join(map(usual_language, codes)) if all(codes) else get_optional(record, "lang", where)
    return sentences[0], sentences[1], score, languages


def measure_similarity(
    encoders: Sequence[NamedEncoder],
    files: Mapping[str, SentencePairs],
    options: "EncoderOptions | None" = None,
    *,
    role: Role = Role.QUERIES,
    seed: int = 42,
    progress: bool | None = None,
) -> dict[str, SimilarityResult]:
    """Correlates the cosine of each pair with its gold score, over all pairs and those of each language pair.

    The interval of Spearman's rho is a percentile bootstrap over pairs. All encoders see the same resamples,
    so that differences are paired.

    Args:
        files: name -> its pairs.
        role: what the sentences are encoded as. Queries by default: where a family has prompts, such as E5's
            "query: ", its makers use that of queries on both sides of symmetric tasks.
    """
    import numpy as np

    from mimo_plugin.encoder.encoder import unit

    cosines: dict[str, dict[str, np.ndarray]] = {name: {} for name in files}
    for encoder in encoders:
        model = encoder.load(options)
        encode = model.encode_documents if role is Role.DOCUMENTS else model.encode_queries
        for name, pairs in files.items():
            texts = pairs.sentences
            what = f"encoding, {encoder.label}"
            with bar(total=len(texts), what=what, unit="sentences", enabled=progress) as counter:
                vectors = unit(encode(texts, advance=counter.update))
            place = {text: position for position, text in enumerate(texts)}
            one, other = (vectors[[place[text] for text in side]] for side in (pairs.first, pairs.second))
            cosines[name][encoder.label] = (one * other).sum(axis=1, dtype=np.float64)
    return {
        name: SimilarityResult(
            file=pairs.path.name,
            role=role,
            seed=seed,
            encoders=_correlate(pairs, cosines[name], seed),
        )
        for name, pairs in files.items()
    }


def _correlate(
    pairs: SentencePairs, cosines: Mapping[str, "np.ndarray"], seed: int
) -> dict[str, dict[str, CorrelationResult]]:
    import numpy as np

    gold, languages = np.array(pairs.gold), np.array(pairs.languages)
    groups = {ALL: np.ones(len(gold), dtype=bool)}
    if len(names := sorted({*pairs.languages} - {""})) > 1 or (names and "" in pairs.languages):
        groups |= {name: languages == name for name in names}
    found: dict[str, dict[str, CorrelationResult]] = {label: {} for label in cosines}
    for name, chosen in groups.items():
        results = correlate(gold[chosen], np.stack([own[chosen] for own in cosines.values()]), seed)
        for label, result in zip(cosines, results, strict=True):
            found[label][name] = result
    return found


def correlate(gold: "np.ndarray", cosines: "np.ndarray", seed: int) -> list[CorrelationResult]:
    """Correlation of each encoder's cosines with gold scores.

    Args:
        gold: (pairs,)
        cosines: (encoders, pairs)
    """
    import numpy as np
    from scipy.stats import bootstrap, pearsonr

    n = len(gold)
    samples = np.full((len(cosines), 1), np.nan)
    # Values that do not vary have no correlation: NaN, here and in resamples.
    with np.errstate(invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        rhos = [_number(rho) for rho in _spearman(gold, *cosines, axis=-1)]
        if n > 2:
            samples = bootstrap(
                (gold, *cosines),
                _spearman,
                paired=True,
                vectorized=True,
                n_resamples=_RESAMPLES,
                batch=max(1, _AT_ONCE // (n * (len(cosines) + 1))),
                method="percentile",
                rng=np.random.default_rng(seed),
            ).bootstrap_distribution
    tails = [(1 - _CONFIDENCE) / 2, (1 + _CONFIDENCE) / 2]
    ends, differences = (np.quantile(one, tails, axis=-1).T for one in (samples, samples - samples[:1]))
    results = []
    for place, (own, rho) in enumerate(zip(cosines, rhos, strict=True)):
        compared = None
        if place and rho is not None and rhos[0] is not None:
            low, high = map(_number, differences[place])
            compared = DifferenceOfRho(value=rho - rhos[0], low=low, high=high)
        low, high = map(_number, ends[place])
        results.append(
            CorrelationResult(
                pairs=n,
                spearman=rho,
                low=low,
                high=high,
                pearson=None if rho is None else float(pearsonr(gold, own).statistic),
                difference=compared,
            )
        )
    return results


def _spearman(gold: "np.ndarray", *cosines: "np.ndarray", axis: int) -> "np.ndarray":
    """Spearman's rho of each encoder, (encoders, ...): Pearson's correlation of ranks, ties at their mean."""
    import numpy as np
    from scipy.stats import rankdata

    def ranks(values: "np.ndarray") -> "np.ndarray":
        ranked: np.ndarray = rankdata(values, axis=axis)
        return np.asarray(ranked - ranked.mean(axis=axis, keepdims=True))

    own = ranks(gold)
    others = [ranks(one) for one in cosines]
    spread = np.sqrt((own**2).sum(axis=axis))
    return np.stack(
        [(own * other).sum(axis=axis) / (spread * np.sqrt((other**2).sum(axis=axis))) for other in others]
    )


def _number(value: float) -> float | None:
    return float(value) if isfinite(value) else None


def similarity_tables(found: Mapping[str, SimilarityResult]) -> list[Table]:
    """A table per file, with a row for each encoder and languages."""
    return [_table(name, one) for name, one in found.items()]


def _table(name: str, found: SimilarityResult) -> Table:
    labels = list(found.encoders)
    columns = ["encoder", "languages", "pairs", "Spearman", "low", "high", "Pearson"]
    grouped = [Column(column, "95 % interval" if column in ("low", "high") else "") for column in columns]
    if len(labels) > 1:
        grouped += [Column(column, f"minus {labels[0]}") for column in ("difference", "from", "to")]
    rows = []
    for label, by_languages in found.encoders.items():
        for languages, one in by_languages.items():
            values = [one.spearman, one.low, one.high, one.pearson]
            row = [words(label), words(languages), count(one.pairs), *map(number, values)]
            if len(labels) > 1:
                change = one.difference
                compared = [change.value, change.low, change.high] if change else [None] * 3
                row += [number(value, "+.4f") for value in compared]
            rows.append(row)
    notes = [
        f"Cosines of sentences, encoded as {found.role}, against gold scores; 95 % intervals of Spearman's "
        f"rho by {_RESAMPLES:,} bootstrap samples of pairs."
    ]
    return Table.of(f"Sentence similarity, {name}", grouped, rows, notes, name=f"similarity-{name}")
