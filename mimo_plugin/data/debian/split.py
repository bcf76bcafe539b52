"""Groups packages that are variants of each other, and splits the groups into train, dev and test."""

import re
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import chain
from zlib import crc32

from mimo_plugin.core.errors import Problems
from mimo_plugin.data.debian.archive import Dropped, Row
from mimo_plugin.data.options import Split, SplitOptions

# Jaccard similarity of word trigrams from which texts are near-duplicates, as descriptions of one software's
# packages often are.
NEAR = 0.6
_WORDS = re.compile(r"[^\W\d_]+")
_SHINGLE = 3
# Texts with a similarity of 0.6 share a band of min-hashes with probability 0.98, at 0.7 with 0.999.
_BANDS, _ROWS = 16, 3
# Comparisons of a text within a bucket: thousands of texts from one template take no quadratic time.
_COMPARED = 16
_SEED = 20


@dataclass(frozen=True)
class Sketches:
    """MinHash sketches of texts; case, digits, punctuation and white space do not count.

    Attributes:
        shingles: hashes of each text's word trigrams; empty for a text without words.
        bands: for each band, min-hashes -> positions of the texts that have them.
    """

    shingles: list[frozenset[int]]
    bands: list[dict[bytes, list[int]]]

    @classmethod
    def of(cls, texts: Sequence[str]) -> "Sketches":
        import numpy as np

        random = np.random.default_rng(_SEED)
        factors = random.integers(1, 2**63, _BANDS * _ROWS, dtype=np.uint64) | np.uint64(1)
        offsets = random.integers(0, 2**63, _BANDS * _ROWS, dtype=np.uint64)
        shingles = [_shingles(text) for text in texts]
        bands: list[dict[bytes, list[int]]] = [{} for _ in range(_BANDS)]
        for index, found in enumerate(shingles):
            if not found:
                continue
            values = np.fromiter(found, dtype=np.uint64, count=len(found))
            # Multiply-shift hashing: the upper half of the wrapped product is random.
            smallest = ((values[:, None] * factors + offsets) >> np.uint64(32)).min(axis=0)
            for band, hashes in zip(bands, smallest.reshape(_BANDS, _ROWS), strict=True):
                band.setdefault(hashes.tobytes(), []).append(index)
        return cls(shingles, bands)

    def pairs(self) -> Iterator[tuple[int, int]]:
        """Yields positions of near-duplicates: an earlier text and a later one."""
        for band in self.bands:
            for bucket in band.values():
                before: list[int] = []
                for index in bucket:
                    found = self._first_near(before, self.shingles[index])
                    if found is not None:
                        yield found, index
                    elif len(before) < _COMPARED:
                        before.append(index)

    def near(self, others: "Sketches") -> set[int]:
        """Positions of the texts that are near-duplicates of one of the others."""
        found: set[int] = set()
        for band, theirs in zip(self.bands, others.bands, strict=True):
            for hashes in band.keys() & theirs.keys():
                found |= {
                    index
                    for index in band[hashes]
                    if index not in found
                    and others._first_near(theirs[hashes][:_COMPARED], self.shingles[index]) is not None
                }
        return found

    def _first_near(self, candidates: Sequence[int], shingles: frozenset[int]) -> int | None:
        for index in candidates:
            own = self.shingles[index]
            if len(own & shingles) / len(own | shingles) >= NEAR:
                return index
        return None


def _shingles(text: str) -> frozenset[int]:
    words = _WORDS.findall(text.casefold())
    if not words:
        return frozenset()
    starts = range(max(1, len(words) - _SHINGLE + 1))
    return frozenset(crc32(" ".join(words[start : start + _SHINGLE]).encode()) for start in starts)


_PREFIX = re.compile(
    r"(lib(32|64|x32)?|python\d*-|pypy\d*-|ruby-|node-|golang-([a-z0-9.]+-)?|rust-|r-(cran|bioc|other)-|fonts-"
    r"|php\d*-|elpa-|gir\d+\.\d+-|ghc-|lua-|ocaml-|erlang-|xserver-xorg-|texlive-|gstreamer\d+\.\d+-)"
)
_PART = re.compile(
    r"[-_.](dev|docs?|data|common|dbg|dbgsym|bin|utils?|tools?|examples?|demos?|samples?|plugins?|modules?|core"
    r"|server|client|daemon|cli|gui|base|runtime|extras?|headers?|source|src|libs?|static|tests?|prof|all|full"
    r"|light|minimal|manual|help|themes?|icons|backends?|contrib|(bash-)?completion|applet|widgets|addons|dkms"
    r"|cross|udeb|i18n|l10n|locales?|lang|x11|nox|gtk[234]?|qt[456]?|qml|tk|gnome|kde|(open)?mpi|mpich|serial"
    r"|mysql|pgsql|sqlite3?|perl|python3?|ruby|lua|guile|php|java|jni|cil|ocaml|el)"
)
_LANGUAGE = re.compile(r"-(l10n|locale|i18n|help|doc|lang)-[a-z]{2,3}([-_@][a-z]+)*")
_TRIPLET = re.compile(r"-(x86-64|[a-z0-9]+)-linux-gnu[a-z0-9]*")
# Version of a library or program, with marks of ABI transitions: 1.2-3, 0v5, 1t64.
_VERSION = re.compile(r"([-.~+]v?)?\d[\d.]*(c2a?|v5|t64|gf|[a-z])?")
_ENDS = tuple(re.compile(f"{pattern.pattern}$") for pattern in (_TRIPLET, _LANGUAGE, _PART, _VERSION))


def stem(package: str) -> str:
    """A package's name without prefixes, suffixes and versions; never empty."""
    name = package.lower()
    while True:
        shorter = name
        for end in _ENDS:
            shorter = _without(end.search(shorter), shorter)
        shorter = _without(_PREFIX.match(shorter), shorter)
        if shorter == name:
            return name
        name = shorter


def _without(match: re.Match[str] | None, name: str) -> str:
    if match is None:
        return name
    return (name[: match.start()] + name[match.end() :]).strip("-_.+~") or name


@dataclass(frozen=True)
class Descriptions:
    """Descriptions for comparison, in parallel lists.

    Attributes:
        stems: of their packages' names; "" for an unknown package.
        sketches: of the English long texts.
    """

    ids: list[str]
    stems: list[str]
    sketches: Sketches

    @classmethod
    def of(cls, rows: Sequence[Row]) -> "Descriptions":
        return cls(
            [row.id for row in rows],
            [stem(row.package) for row in rows],
            Sketches.of([row.english().long for row in rows]),
        )

    def variants(self, others: "Descriptions") -> set[int]:
        """Positions of variants of the others: with an equal id, an equal stem, or a near-duplicate text."""
        ids, stems = set(others.ids), set(others.stems) - {""}
        found = self.sketches.near(others.sketches)
        return found | {
            index
            for index, (identifier, name) in enumerate(zip(self.ids, self.stems, strict=True))
            if identifier in ids or name in stems
        }

    def groups(self) -> list[str]:
        """The name of each description's group: its variants, their variants, and so on."""
        import numpy as np
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        count = len(self.ids)
        pairs = list(chain(_equal(self.ids), _equal(self.stems), self.sketches.pairs()))
        edges = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
        graph = coo_array((np.ones(len(pairs)), (edges[0], edges[1])), shape=(count, count))
        _, components = connected_components(graph, directed=False)
        names: dict[int, str] = {}
        for component, name in zip(components, self.stems, strict=True):
            names[component] = min(names.get(component, name), name)
        return [names[component] for component in components]


def _equal(values: Iterable[Hashable]) -> Iterator[tuple[int, int]]:
    """Yields (position of the first equal value, position) for each value."""
    first: dict[Hashable, int] = {}
    for index, value in enumerate(values):
        yield first.setdefault(value, index), index


# Larger groups are only used for training. They share a template, such as all Rust crates do, and one of them
# would dominate a dev or test set.
LARGEST_EVALUATED = 200


def split_rows(
    main: Sequence[Row],
    given: Mapping[Split, Sequence[Row]],
    excluded: Mapping[str, str],
    options: SplitOptions,
) -> tuple[dict[Split, list[Row]], Dropped]:
    """Splits a table by groups of variants, see `Descriptions`.

    No group is in two splits, and none with more than `LARGEST_EVALUATED` rows in dev or test.

    Args:
        given: splits that have a table of their own; variants of their rows are left out of `main`.
        excluded: id -> English long text, "" if unknown, of descriptions for evaluation. They and their
            variants are left out of training.

    Returns:
        The rows of each split, in the order of their table; and the texts left out, reason -> language ->
        count.
    """
    descriptions = Descriptions.of(main)
    taken = {
        index: split
        for split, rows in given.items()
        for index in descriptions.variants(Descriptions.of(rows))
    }
    forbidden = _variants_of_texts(descriptions, excluded)
    groups = descriptions.groups()
    sizes = Counter(groups)
    splits: dict[Split, list[Row]] = {split: list(given.get(split, ())) for split in Split}
    dropped: Dropped = {}
    for index, (row, name) in enumerate(zip(main, groups, strict=True)):
        if index in taken:
            reason = f"variant of a given {taken[index]} description"
        else:
            split = _draw(name, options)
            if split in given or sizes[name] > LARGEST_EVALUATED:
                split = Split.TRAIN
            if split is not Split.TRAIN or index not in forbidden:
                splits[split].append(row)
                continue
            reason = "variant of an excluded description"
        dropped.setdefault(reason, Counter()).update(row.text.keys())
    return splits, dropped


def _variants_of_texts(descriptions: Descriptions, texts: Mapping[str, str]) -> set[int]:
    """Positions of variants of descriptions with unknown packages, and of their variants' packages."""
    others = Descriptions(list(texts), [""] * len(texts), Sketches.of(list(texts.values())))
    found = descriptions.variants(others)
    stems = {descriptions.stems[index] for index in found}
    return {index for index, name in enumerate(descriptions.stems) if name in stems}


def _draw(name: str, options: SplitOptions) -> Split:
    digest = blake2b(f"{options.seed}:{name}".encode(), digest_size=8).digest()
    place = int.from_bytes(digest, "big") / 2**64
    if place < options.test_share:
        return Split.TEST
    return Split.DEV if place < options.test_share + options.dev_share else Split.TRAIN


def excluded_texts(collections: Sequence[str]) -> dict[str, str]:
    """The descriptions of the collections' documents: id -> English long text, "" without one.

    Raises:
        DataError: a collection is unknown, has no documents, or cannot be read.
    """
    from mimo_plugin.collections.loading import require
    from mimo_plugin.collections.pool import load

    require(collections, docs=True)
    problems = Problems()
    texts: dict[str, str] = {}
    for spec in collections:
        with problems.collect():
            for doc in load(spec, pooled=False).docs_iter():
                identifier = doc.doc_id.removeprefix(f"{doc.lang}:")
                texts[identifier] = doc.text if doc.lang == "en" else texts.get(identifier, "")
    problems.raise_any()
    return texts
