"""The rows and languages of each batch of a stage."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain, repeat
from typing import TYPE_CHECKING, Any

from mimo_plugin.core.errors import UsageError
from mimo_plugin.training.data import NEGATIVES, DataManifest, Pairs, Rereadable, Table
from mimo_plugin.training.recipe import Stage1Options, Stage2Options, StageOptions
from mimo_plugin.training.schedule import Objective, Schedule, language_sets, pairs, singles
from mimo_plugin.training.teacher_store import Role, TeacherStore

if TYPE_CHECKING:
    import numpy as np
    from datasets import Dataset


@dataclass(frozen=True)
class Relevance:
    """Relevant pairs: in row k of the table, passages[k] is relevant to queries[k].

    Attributes:
        queries, passages: number of each row's query and passage; equal ones have the same number. (rows,)
    """

    queries: "np.ndarray"
    passages: "np.ndarray"

    @classmethod
    def of(cls, data: Table) -> "Relevance":
        """Queries, and passages, are equal if their ids or their texts in the anchor language are."""
        import pandas as pd

        def numbers(column: str, ids: str) -> "np.ndarray":
            texts = pd.Series(data.anchors(column), dtype=object)
            return _merged(pd.factorize(data.dataset.data.column(ids).to_pandas())[0], pd.factorize(texts)[0])

        return cls(numbers("queries", "query_id"), numbers("passages", "passage_id"))

    def conflicts(self) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
        """The relevant passages of each query number, and the queries of each passage number."""
        import numpy as np

        def grouped(keys: "np.ndarray", values: "np.ndarray") -> list[tuple[int, ...]]:
            order = np.argsort(keys, kind="stable")
            ends = np.cumsum(np.bincount(keys))
            return [tuple(part.tolist()) for part in np.split(values[order], ends[:-1])]

        return grouped(self.queries, self.passages), grouped(self.passages, self.queries)


def contrastive_batches(
    relevance: Relevance,
    usable: "np.ndarray",
    batch_size: int,
    steps: int,
    generator: "np.random.Generator",
    negatives: "np.ndarray | None" = None,
) -> "np.ndarray":
    """Batches in which no passage is relevant to another row's query, int64 (steps, batch_size) row numbers.

    A row that would bring such a false negative into a batch waits for a later one. Every pass over the
    usable rows is in a new random order; rows that wait go first.

    Args:
        negatives: row numbers of each row's mined negatives, whose passages come into the batch with the row.
            (rows, N)

    Raises:
        UsageError: no batch of that size can be filled without a false negative.
    """
    import numpy as np

    passages_of, queries_of = relevance.conflicts()
    queries, passages = relevance.queries.tolist(), relevance.passages[:, None]
    if negatives is not None:
        passages = np.concatenate([passages, relevance.passages[negatives]], axis=1)
    brought = passages.tolist()
    batches = np.empty((steps, batch_size), dtype=np.int64)
    waiting: list[int] = []
    fresh: Iterator[int] = iter(())
    for step in range(steps):
        batch: list[int] = []
        blocked_queries: set[int] = set()
        blocked_passages: set[int] = set()
        deferred: list[int] = []
        passes = 0
        while len(batch) < batch_size:
            if waiting:
                row = waiting.pop()
            else:
                row = next(fresh, -1)
                if row < 0:
                    passes += 1
                    if passes > 2:
                        raise UsageError(
                            f"--batch-size {batch_size}: only {len(batch)} rows can be put into one batch "
                            "without a passage that is relevant to another row's query; choose a smaller "
                            f"batch{'' if negatives is None else ' or fewer --negatives'}"
                        )
                    fresh = iter(generator.permutation(usable).tolist())
                    continue
            if queries[row] in blocked_queries or not blocked_passages.isdisjoint(brought[row]):
                deferred.append(row)
                continue
            batch.append(row)
            for passage in brought[row]:
                blocked_queries.update(queries_of[passage])
            blocked_passages.update(passages_of[queries[row]])
        waiting.extend(reversed(deferred))
        batches[step] = batch
    return batches


def shuffled_batches(
    rows: int, batch_size: int, steps: int, generator: "np.random.Generator"
) -> "np.ndarray":
    """Batches of rows, int64 (steps, batch_size) row numbers; every pass over the rows is in a new order."""
    import numpy as np

    needed = steps * batch_size
    passes = [generator.permutation(rows) for _ in range(-(-needed // rows))]
    return np.concatenate(passes)[:needed].reshape(steps, batch_size)


# Independent streams of random numbers from one seed.
_ORDER, _LANGUAGES, _PASSAGE_LANGUAGES, _NEGATIVES, _NEGATIVE_LANGUAGES, _TARGETS = range(6)
_READ_AT_ONCE = 1024


@dataclass(frozen=True)
class Plan:
    """Everything that is drawn for a run; called with the stores of its teachers, it gives the examples.

    Attributes:
        examples: makes them from the stores of the teacher and of the anchor teacher; None where there is
            none.
        anchor_texts: those whose target is the teacher's vector, by role.
        own_texts: the student's texts whose target is the anchor teacher's vector, by role.
    """

    examples: Callable[[TeacherStore | None, TeacherStore | None], "Examples"]
    anchor_texts: Mapping[Role, Iterable[str]]
    own_texts: Mapping[Role, Iterable[str]]

    def __call__(self, store: TeacherStore | None = None, anchor: TeacherStore | None = None) -> "Examples":
        return self.examples(store, anchor)


@dataclass(frozen=True)
class Examples:
    """All examples of a run in the order of training.

    Attributes:
        dataset: the text columns, and `label` if there is a teacher.
        steps: optimiser steps.
        counts: combination of languages ("de-en") -> number of rows.
    """

    dataset: "Dataset"
    text_columns: tuple[str, ...]
    steps: int
    counts: Mapping[str, int]


def plan_stage1(data: Pairs, options: Stage1Options, *, seed: int) -> Plan:
    """Single texts with the teacher's embedding of their anchor text: columns text, label (dimension,).

    With an anchor teacher, labels are as `Distillation` says.

    Raises:
        UsageError: the batch is larger than the data.
    """
    import numpy as np

    available = len(data.dataset)
    steps = options.steps_on(available)
    rows = shuffled_batches(available, options.batch_size, steps, _generator(seed, _ORDER)).reshape(-1)

    languages = data.dataset.data.column("lang").to_numpy()[rows]
    names, numbers = np.unique(languages.astype(str), return_counts=True)
    counts = dict(zip(names.tolist(), numbers.tolist(), strict=True))
    drawn = _drawn_targets(options, steps, columns=1, seed=seed)

    def examples(store: TeacherStore | None, anchor: TeacherStore | None) -> Examples:
        if store is None:
            raise TypeError("stage 1 needs the teacher")

        def read(batch: Mapping[str, Sequence[int]]) -> dict[str, list[Any]]:
            positions = batch["position"]
            found = data.dataset[rows[positions].tolist()]
            texts = found["anchor"], found["text"]
            label = _targets(store, anchor, Role.TEXT, *texts, drawn[positions, 0])
            return {"text": found["text"], "label": _labels([label])}

        return Examples(_lazy(len(rows), read), ("text",), steps, counts)

    def own(_: str, positions: "np.ndarray") -> list[str]:
        return list(data.dataset[rows[positions].tolist()]["text"])

    anchors = _anchor_texts(data.anchors, {"anchor": Role.TEXT}, rows, drawn)
    return Plan(examples, anchors, _own_texts(own, {"text": Role.TEXT}, drawn))


def plan_stage2(data: Table, options: Stage2Options, *, seed: int) -> Plan:
    """Rows in languages: query, (other_query,) passage, (negative_1, ...); for MIMO label (2, dimension).

    With an anchor teacher, labels are as `Distillation` says, drawn for query and passage independently.
    Each row gets one combination of languages; LaKDA draws the passage's language independently. A mined
    negative is in the passage's language, or where its row lacks that, in a language drawn from its own. No
    batch holds a passage, mined ones too, that is relevant to another row's query.

    Raises:
        UsageError: the batch is larger than the data, or cannot be filled without false negatives.
    """
    import numpy as np

    languages = sorted(data.manifest.languages)
    row_languages = data.dataset.data.column("langs").to_pylist()
    usable = np.array([k for k, own in enumerate(row_languages) if len(own) > 1], dtype=np.int64)
    steps = options.steps_on(len(usable))
    relevance = Relevance.of(data)
    count = negatives_per_row(options, data.manifest)
    negatives = mined_negatives(data, relevance, count, _generator(seed, _NEGATIVES)) if count else None
    batches = contrastive_batches(
        relevance, usable, options.batch_size, steps, _generator(seed, _ORDER), negatives
    )
    rows = batches.reshape(-1)
    sets = language_sets(row_languages, languages)
    columns, counts = _draw(options.objective, sets[rows], languages, len(usable), seed)
    # Text column -> the rows that its texts are from, by position, and their languages.
    sources = {name: (rows, drawn) for name, drawn in columns.items()}
    if negatives is not None:
        generator = _generator(seed, _NEGATIVE_LANGUAGES)
        for number, others in enumerate(negatives[rows].T, start=1):
            drawn = _in_own_languages(columns["passage"], sets[others], generator)
            sources[f"negative_{number}"] = others, drawn
    roles = {"query": Role.QUERY, "passage": Role.PASSAGE}
    drawn_targets = _drawn_targets(options, steps, columns=len(roles), seed=seed)

    def texts_of(positions: Any) -> tuple[dict[str, Any], dict[str, list[Any]]]:
        found = data.dataset[rows[positions].tolist()]
        texts: dict[str, list[Any]] = {}
        for name, (others, drawn) in sources.items():
            source = found if name in columns else data.dataset[others[positions].tolist()]
            texts[name] = [
                versions[own.index(languages[lang])]
                for versions, own, lang in zip(
                    source["queries" if name.endswith("query") else "passages"],
                    source["langs"],
                    drawn[positions],
                    strict=True,
                )
            ]
        return found, texts

    def examples(store: TeacherStore | None, anchor: TeacherStore | None) -> Examples:
        def read(batch: Mapping[str, Sequence[int]]) -> dict[str, list[Any]]:
            positions = batch["position"]
            found, texts = texts_of(positions)
            if store is not None:
                place = [own.index(data.manifest.anchor) for own in found["langs"]]
                labels = []
                for column, (name, role) in enumerate(roles.items()):
                    source = found["passages" if name == "passage" else "queries"]
                    anchors = [versions[k] for versions, k in zip(source, place, strict=True)]
                    by_anchor = drawn_targets[positions, column]
                    labels.append(_targets(store, anchor, role, anchors, texts[name], by_anchor))
                texts["label"] = _labels(labels)
            return texts

        return Examples(_lazy(len(rows), read), tuple(sources), steps, counts)

    def own(column: str, positions: "np.ndarray") -> list[str]:
        return texts_of(positions)[1][column]

    anchor_columns = {"queries": Role.QUERY, "passages": Role.PASSAGE}
    anchors = _anchor_texts(data.anchors, anchor_columns, rows, drawn_targets)
    return Plan(examples, anchors, _own_texts(own, roles, drawn_targets))


def _drawn_targets(options: StageOptions, steps: int, *, columns: int, seed: int) -> "np.ndarray":
    """Whether a text's target is the anchor teacher's vector, bool (steps * batch_size, columns).

    Each text is drawn independently, with the share of its step: linear from the first step to the last.
    """
    import numpy as np

    if options.anchor_share is None:
        return np.zeros((steps * options.batch_size, columns), dtype=bool)
    shares = np.linspace(*options.anchor_share, steps).repeat(options.batch_size)
    drawn: np.ndarray = _generator(seed, _TARGETS).random((len(shares), columns)) < shares[:, None]
    return drawn


def _anchor_texts(
    read: Callable[[str, "np.ndarray"], Iterator[str]],
    roles: Mapping[str, Role],
    rows: "np.ndarray",
    drawn: "np.ndarray",
) -> dict[Role, Iterable[str]]:
    """The anchor texts of each column in the data's order, without rows that are never drawn."""
    import numpy as np

    return {
        role: Rereadable(partial(read, name, np.unique(rows[~drawn[:, column]])))
        for column, (name, role) in enumerate(roles.items())
    }


def _own_texts(
    own: Callable[[str, "np.ndarray"], list[str]], roles: Mapping[str, Role], drawn: "np.ndarray"
) -> dict[Role, Iterable[str]]:
    """The drawn texts of each column by its role. own: reads a column's texts at positions."""
    import numpy as np

    def texts(name: str, positions: "np.ndarray") -> Iterator[str]:
        for start in range(0, len(positions), _READ_AT_ONCE):
            yield from own(name, positions[start : start + _READ_AT_ONCE])

    return {
        role: Rereadable(partial(texts, name, np.flatnonzero(drawn[:, column])))
        for column, (name, role) in enumerate(roles.items())
    }


def _targets(
    store: TeacherStore,
    anchor: TeacherStore | None,
    role: Role,
    anchor_texts: Sequence[str],
    own_texts: Sequence[str],
    by_anchor: "np.ndarray",
) -> "np.ndarray":
    """The targets of a column's texts, see `Distillation`: (rows, t), or (rows, max(t, a) + 1)."""
    import numpy as np

    if anchor is None:
        return store.vectors(anchor_texts, role)
    found = np.zeros((len(own_texts), max(store.dimension, anchor.dimension) + 1), dtype=np.float32)
    found[:, -1] = by_anchor
    for source, texts, rows in (
        (store, anchor_texts, np.flatnonzero(~by_anchor)),
        (anchor, own_texts, np.flatnonzero(by_anchor)),
    ):
        if len(rows):
            found[rows, : source.dimension] = source.vectors([texts[row] for row in rows.tolist()], role)
    return found


def negatives_per_row(options: Stage2Options, table: DataManifest) -> int:
    """Mined negatives per row that training uses: by default as many as a row of the table has at most.

    Raises:
        UsageError: the table has fewer, or the objective uses none.
    """
    most, asked = table.negatives.most if table.negatives else 0, options.negatives
    if options.objective is Objective.LAKDA:
        if asked:
            raise UsageError(
                f"--negatives {asked}: LaKDA has no mined negatives, only the passages of the batch: leave "
                "the option out, or choose another --objective"
            )
        return 0
    if (asked or 0) > most:
        found = f"at most {most} per row" if most else "none: `mimo data negatives` mines some"
        raise UsageError(f"--negatives {asked}: the table has {found}")
    return most if asked is None else asked


def mined_negatives(
    data: Table, relevance: Relevance, count: int, generator: "np.random.Generator"
) -> "np.ndarray":
    """Rows whose passages are the mined negatives of each row, the hardest first, int64 (rows, count).

    Of the rows with a passage, the one in the most languages stands for it. A row with fewer negatives gets
    passages drawn at random in their place. None is relevant to the row's query, and none is there twice.

    Raises:
        UsageError: the table has too few passages.
    """
    import numpy as np
    import pandas as pd

    table = data.dataset.data
    spoken = np.array([len(langs) for langs in table.column("langs").to_pylist()])
    passage_ids = table.column("passage_id").to_pandas().iloc[np.argsort(-spoken, kind="stable")]
    first = passage_ids.drop_duplicates()
    row_of = pd.Series(first.index, index=first).to_dict()
    passages_of, _ = relevance.conflicts()
    passages = relevance.passages.tolist()
    distinct = len(set(passages))
    found = np.empty((len(spoken), count), dtype=np.int64)
    for row, mined in enumerate(table.column(NEGATIVES).to_pylist()):
        taken = set(passages_of[relevance.queries[row]])
        if distinct < len(taken) + count:
            raise UsageError(
                f"--negatives {count}: of {distinct} passages in the table, {len(taken)} are relevant to "
                f"query {table.column('query_id')[row]}: take fewer negatives"
            )
        known = (row_of[passage_id] for passage_id in mined if passage_id in row_of)
        drawn = (int(generator.integers(len(passages))) for _ in repeat(None))
        chosen: list[int] = []
        for other in chain(known, drawn):
            if passages[other] not in taken:
                taken.add(passages[other])
                chosen.append(other)
            if len(chosen) == count:
                break
        found[row] = chosen
    return found


def _in_own_languages(
    wanted: "np.ndarray", sets: "np.ndarray", generator: "np.random.Generator"
) -> "np.ndarray":
    """The wanted languages where the rows have them, else one of the row's own at random.

    Args:
        wanted: positions in the list of languages. (n,)
        sets: the rows' languages as bits. (n,)
    """
    import numpy as np

    drawn = wanted.copy()
    for position in np.flatnonzero(sets >> wanted & 1 == 0):
        own = [bit for bit in range(int(sets[position]).bit_length()) if sets[position] >> bit & 1]
        drawn[position] = generator.choice(own)
    return drawn


def _draw(
    objective: Objective, sets: "np.ndarray", languages: Sequence[str], pass_length: int, seed: int
) -> tuple[dict[str, "np.ndarray"], dict[str, int]]:
    """The language of each text column, as positions in the languages, and the counts of combinations.

    Each pass draws its own languages, so a repeated row is not tied to those of the first pass.
    """
    import numpy as np

    def drawn(schedule: Schedule) -> "np.ndarray":
        starts = range(0, len(sets), pass_length)
        found = np.concatenate([schedule.draw(sets[start : start + pass_length]) for start in starts])
        combined: np.ndarray = np.array(schedule.combinations, dtype=np.int64)[found]
        return combined

    single = objective is Objective.INFONCE
    combinations = singles(len(languages)) if single else pairs(len(languages))
    schedule = Schedule(combinations, _generator(seed, _LANGUAGES))
    chosen = drawn(schedule)
    counts = {
        "-".join(languages[k] for k in combination): int(count)
        for combination, count in zip(schedule.combinations, schedule.counts, strict=True)
    }
    if objective is Objective.LAKDA:
        passages = Schedule(singles(len(languages)), _generator(seed, _PASSAGE_LANGUAGES))
        return {"query": chosen[:, 0], "other_query": chosen[:, 1], "passage": drawn(passages)[:, 0]}, counts
    return {"query": chosen[:, 0], "passage": chosen[:, -1]}, counts


def _merged(first: "np.ndarray", second: "np.ndarray") -> "np.ndarray":
    """Merges two numberings: rows that are equal in either, directly or in a chain, get one number."""
    import numpy as np
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    # Each row is an edge between its two numbers. Equal edges are summed, so the dtype must hold their count.
    offset = int(first.max()) + 1
    size = offset + int(second.max()) + 1
    edges = np.ones(len(first), dtype=np.int64), (first, offset + second)
    _, component = connected_components(coo_matrix(edges, shape=(size, size)), directed=False)
    return np.asarray(component[first], dtype=np.int64)


def _labels(columns: Sequence["np.ndarray"]) -> list[Any]:
    """One tensor per row: (dimension,) for one column, (columns, dimension) for several."""
    import numpy as np
    import torch

    stacked = columns[0] if len(columns) == 1 else np.stack(columns, axis=1)
    return list(torch.from_numpy(np.ascontiguousarray(stacked)).unbind())


def _lazy(rows: int, read: Any) -> "Dataset":
    from datasets import Dataset

    return Dataset.from_dict({"position": range(rows)}).with_transform(read)


def _generator(seed: int, stream: int) -> "np.random.Generator":
    import numpy as np

    return np.random.default_rng([seed, stream])
