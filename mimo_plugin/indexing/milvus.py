"""Collections of Milvus, searched as an index of FAISS is.

Milvus Lite, in a directory of this machine, and a server or cluster take the same calls of one client. A
collection has the fields docid, lang, row (the document's number) and vector. Its manifest is a property:
`BEGUN` from the start of a load, `FINISHED` once all was read back and is right. `loading` writes both.
"""

import hashlib
import json
import logging
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Self
from urllib.parse import urlsplit
from weakref import WeakValueDictionary, finalize

import numpy as np

from mimo_plugin.core.artifact import unseal
from mimo_plugin.core.errors import ArtifactError, EnvironmentProblem, UsageError
from mimo_plugin.encoder.encoder import Encoder, lengths
from mimo_plugin.indexing.nearest import Ranked, descending, inner_products
from mimo_plugin.indexing.plan import EncodingPlan
from mimo_plugin.indexing.settings import MILVUS_PREFIX
from mimo_plugin.indexing.texts import texts_in
from mimo_plugin.indexing.vectors import VectorBatch, VectorsManifest

# Milvus' own limits: hits of a query, and bytes of a text.
_MOST_HITS, LONGEST_TEXT = 16384, 65535
# Documents and hits of one request, far below the 64 MB that servers take.
ROWS, _HITS = 4096, 1 << 17
# Seconds until a server that does not answer is given up.
_PATIENCE = 10
BEGUN, FINISHED = "mimo.begun", "mimo.finished"
EXACT = "FLAT"
# Milvus Lite takes others too, and fails to build them unseen.
LITE_INDEXES = (EXACT, "HNSW", "HNSW_SQ", "IVF_FLAT", "IVF_SQ8", "AUTOINDEX")


class CollectionManifest(VectorsManifest):
    """What is known of a collection, kept in its properties.

    Attributes:
        index: type of Milvus' index and its parameters, as in `ExportOptions.index_type`.
        content: see `Content.digest`.
        longest: largest length of a vector.
    """

    format: Literal["mimo-milvus"] = "mimo-milvus"  # type: ignore[assignment]
    index: str
    content: str
    longest: float


@dataclass(frozen=True)
class Address:
    """`milvus:DIR.db#NAME` for Milvus Lite, `milvus:http://HOST:PORT#NAME` for a server or cluster."""

    uri: str
    collection: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Raises a UsageError for anything else."""
        uri, _, collection = text.removeprefix(MILVUS_PREFIX).partition("#")
        address = cls(uri, collection or "mimo")
        if not re.fullmatch(r"[A-Za-z_]\w{0,254}", address.collection, re.ASCII):
            raise UsageError(
                f"{text}: {collection!r} is no name of a collection, expected letters, digits and _ after #"
            )
        if address.directory is None:
            parts = urlsplit(uri)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise UsageError(f"{text}: expected milvus:http://HOST:PORT#COLLECTION, or milvus:DIR.db")
            if parts.username or parts.password:
                raise UsageError(f"{text.split('//')[0]}//...: give user:password in MILVUS_TOKEN instead")
        elif not uri.endswith(".db"):
            raise UsageError(
                f"{text}: expected milvus:DIR.db for a directory of Milvus Lite, or milvus:http://HOST:PORT"
            )
        return address

    @property
    def directory(self) -> Path | None:
        """Of Milvus Lite; None for a server."""
        return None if "://" in self.uri else Path(self.uri)

    def __str__(self) -> str:
        return f"{MILVUS_PREFIX}{self.uri}#{self.collection}"


class Content:
    """The identity of documents and their vectors, which are added in order."""

    def __init__(self) -> None:
        self._names, self._vectors = hashlib.sha256(), hashlib.sha256()
        self.longest = 0.0

    def add(self, batch: VectorBatch) -> None:
        lines = (f"{docid}\t{lang}\n" for docid, lang in zip(batch.docids, batch.langs, strict=True))
        self._names.update("".join(lines).encode())
        vectors = np.ascontiguousarray(batch.vectors, dtype="<f4")
        self._vectors.update(vectors.tobytes())
        self.longest = max(self.longest, float(lengths(vectors).max(initial=0)))

    @property
    def digest(self) -> str:
        """SHA-256 over docids, languages and vectors, whatever batches they came in."""
        return hashlib.sha256(self._names.digest() + self._vectors.digest()).hexdigest()


class Connection:
    """A client of Milvus. The server of Milvus Lite runs in this process while one of its clients lives."""

    _alive: ClassVar["WeakValueDictionary[str, Connection]"] = WeakValueDictionary()

    @classmethod
    def to(cls, address: Address) -> "Connection":
        """Raises an EnvironmentProblem where Milvus is not installed or does not answer."""
        uri = str(address.directory.absolute()) if address.directory else address.uri
        found = cls._alive.get(uri)
        if found is None:
            found = cls._alive[uri] = cls(address, uri)
        return found

    def __init__(self, address: Address, uri: str) -> None:
        try:
            import pymilvus
        except ImportError as error:
            raise EnvironmentProblem(
                f"{address} needs Milvus' client, and it cannot be imported ({error}): "
                "pip install 'mimo-plugin[milvus]'"
            ) from error
        # Every error that it raises it logs too, with a traceback.
        logging.getLogger("pymilvus").setLevel(logging.CRITICAL)
        options: dict[str, Any] = {"timeout": _PATIENCE, "token": os.environ.get("MILVUS_TOKEN", "")}
        if address.directory:
            # The server is this process: a proxy of the environment is not asked.
            options = {"grpc_options": {"grpc.enable_http_proxy": 0}}
            # It says with a traceback which of the client's calls it does not have.
            logging.getLogger("grpc._server").addFilter(_is_implemented)
        with reporting(address, "see that it runs and that the address is right"), _reasons_of_lite(address):
            self.client = pymilvus.MilvusClient(uri, **options)
        finalize(self, _close, self.client, uri if address.directory else None)


def _is_implemented(record: logging.LogRecord) -> bool:
    return not (record.exc_info and isinstance(record.exc_info[1], NotImplementedError))


def _close(client: Any, directory: str | None) -> None:
    client.close()
    if directory is not None:
        from milvus_lite.server_manager import server_manager_instance

        server_manager_instance.release_server(directory)


@contextmanager
def reporting(address: Address, advice: str) -> Iterator[None]:
    """Turns Milvus' errors into an EnvironmentProblem that ends with the advice."""
    from pymilvus import MilvusException

    try:
        yield
    except MilvusException as error:
        said = " ".join(str(error.message or error).split())
        raise EnvironmentProblem(f"{address}: Milvus says: {said}; {advice}") from error


@contextmanager
def _reasons_of_lite(address: Address) -> Iterator[None]:
    """Raises why Milvus Lite does not start, which it only logs."""
    from pymilvus import MilvusException

    reasons: list[BaseException] = []

    def keep(record: logging.LogRecord) -> bool:
        if record.exc_info and record.exc_info[1]:
            reasons.append(record.exc_info[1])
        return False

    logger = logging.getLogger("milvus_lite.server_manager")
    logger.addFilter(keep)
    try:
        yield
    except MilvusException as error:
        if not reasons:
            raise
        if type(reasons[0]).__name__ == "DataDirLockedError":
            raise EnvironmentProblem(
                f"{address} is in use by another process, and Milvus Lite takes one at a time: wait for it, "
                "or use a server"
            ) from error
        raise EnvironmentProblem(
            f"{address} cannot be opened by Milvus Lite ({reasons[0]}): expected a directory that it made"
        ) from error
    finally:
        logger.removeFilter(keep)


class State(NamedTuple):
    """The manifests of a collection that may not be there.

    Attributes:
        begun: of a load, finished or not.
        finished: of a finished load.
    """

    exists: bool
    begun: CollectionManifest | None = None
    finished: CollectionManifest | None = None


def state_of(connection: Connection, address: Address) -> State:
    client = connection.client
    if not client.has_collection(address.collection):
        return State(False)
    properties = client.describe_collection(address.collection).get("properties", {})
    return State(True, *(_manifest(address, properties.get(name)) for name in (BEGUN, FINISHED)))


def _manifest(address: Address, text: str | None) -> CollectionManifest | None:
    if text is None:
        return None
    try:
        data, whole = unseal(text.encode())
        if whole:
            return CollectionManifest.model_validate(data)
    except ValueError as error:
        raise ArtifactError(
            f"{address}: its manifest is not one of this version: {' '.join(str(error).split())}; load it "
            "again under another name"
        ) from error
    raise ArtifactError(
        f"{address}: its manifest does not match its checksum: load it again with --no-resume"
    )


def count(client: Any, collection: str) -> int:
    """Number of documents."""
    return int(client.query(collection, filter="", output_fields=["count(*)"])[0]["count(*)"])


def pairs(text: str | None, option: str) -> dict[str, int | float | str]:
    """`"ef=128,level=2"` as a dict; None is empty.

    Raises:
        UsageError: it is something else.
    """
    found: dict[str, int | float | str] = {}
    for item in filter(None, (text or "").split(",")):
        name, equals, value = (part.strip() for part in item.partition("="))
        if not (name and equals and value):
            raise UsageError(f"{option} {text}: expected NAME=VALUE,... in Milvus' names, e.g. ef=128")
        try:
            found[name] = json.loads(value)
        except ValueError:
            found[name] = value
    return found


class Collection:
    """A collection that `load` made, to be searched; see `open.AnyIndex`."""

    def __init__(
        self, address: Address, connection: Connection, manifest: CollectionManifest, parameters: str | None
    ) -> None:
        self.encoder: Encoder | None = None
        self.manifest = manifest
        self._address, self._connection, self._is_open = address, connection, False
        self._parameters = pairs(parameters, "--search-parameters")

    def __len__(self) -> int:
        return self.plan.documents

    @property
    def name(self) -> str:
        return str(self._address)

    @property
    def plan(self) -> EncodingPlan:
        return self.manifest.plan

    @property
    def languages(self) -> dict[str, int]:
        return dict(self.manifest.languages)

    def open(self) -> None:
        """Has Milvus load the collection, once, and counts its documents.

        Raises:
            ArtifactError: there are more or fewer than were loaded.
            EnvironmentProblem: Milvus refuses.
        """
        if self._is_open:
            return
        client, name = self._connection.client, self._address.collection
        with reporting(self._address, "see the server's log"):
            client.load_collection(name)
            there = count(client, name)
        if there != len(self):
            raise ArtifactError(
                f"{self._address} holds {there} documents, {len(self)} were loaded: load it again with "
                "`mimo export --no-resume`"
            )
        self._is_open = True

    def searchable(self, languages: Sequence[str] = ()) -> "Served":
        self.open()
        documents = sum(self.languages.get(lang, 0) for lang in languages) if languages else len(self)
        chosen = f"lang in {json.dumps(list(languages), ensure_ascii=False)}" if languages else ""
        return Served(self._address, self._connection, self.manifest, documents, chosen, self._parameters)

    def texts(self, docids: Iterable[str]) -> dict[str, str]:
        """Docid -> text, from the collections that were encoded; raises as `texts_in`."""
        return texts_in(self.plan, list(self._with(docids, "docid")))

    def languages_of(self, docids: Iterable[str]) -> dict[str, str]:
        """Docid -> language, of the docids that are here and have one."""
        return {docid: lang for docid, lang in self._with(docids, "lang").items() if lang}

    def _with(self, docids: Iterable[str], field: str) -> dict[str, str]:
        """Docid -> the value of a field."""
        self.open()
        asked, found = list(dict.fromkeys(docids)), {}
        with reporting(self._address, "see the server's log"):
            for start in range(0, len(asked), ROWS):
                some = json.dumps(asked[start : start + ROWS], ensure_ascii=False)
                for record in self._connection.client.query(
                    self._address.collection, filter=f"docid in {some}", output_fields=["docid", field]
                ):
                    found[record["docid"]] = record[field]
        return {docid: found[docid] for docid in asked if docid in found}


@dataclass(frozen=True)
class Served:
    """The documents of a collection that are searched; see `nearest.Part`.

    Attributes:
        chosen: Milvus' filter; "" is all.
    """

    address: Address
    connection: Connection
    manifest: CollectionManifest
    documents: int
    chosen: str
    parameters: dict[str, int | float | str]
    docids: None = None

    @property
    def name(self) -> str:
        return str(self.address)

    @property
    def rows(self) -> int:
        return self.manifest.plan.documents

    def best(self, vectors: np.ndarray, reach: int) -> Ranked:
        """In exact search, scores that may tie are computed again, as FAISS computes them.

        Raises:
            EnvironmentProblem: Milvus refuses.
        """
        reach = min(reach, _MOST_HITS)
        shape = (len(vectors), reach)
        scores: np.ndarray = np.full(shape, -np.inf, dtype=np.float32)
        rows: np.ndarray = np.full(shape, -1, dtype=np.int64)
        told: dict[int, str] = {}
        step = max(1, _HITS // reach)
        with reporting(self.address, "check --search-parameters, and see the server's log"):
            for start in range(0, len(vectors), step):
                found = self.connection.client.search(
                    self.address.collection,
                    data=list(vectors[start : start + step]),
                    anns_field="vector",
                    limit=reach,
                    filter=self.chosen,
                    output_fields=["docid", "row"],
                    search_params={"metric_type": "IP", "params": self.parameters},
                )
                for query, hits in enumerate(found, start):
                    numbers = [int(hit["row"]) for hit in hits]
                    scores[query, : len(numbers)] = [hit["distance"] for hit in hits]
                    rows[query, : len(numbers)] = numbers
                    told.update(zip(numbers, (hit["docid"] for hit in hits), strict=True))
            floor = scores[:, -1]
            if self.manifest.index == EXACT:
                margin = self._margin(vectors)
                floor = floor + margin
                scores, rows = descending(self._settled(vectors, scores, rows, margin), rows)
        if reach >= self.documents:
            floor = np.full(len(vectors), -np.inf, dtype=np.float32)
        return Ranked(scores, rows, floor, told)

    def _margin(self, vectors: np.ndarray) -> np.ndarray:
        """Bounds the rounding error of Milvus' scores, (queries,)."""
        bound: np.ndarray = 16 * np.finfo(np.float32).eps * lengths(vectors) * self.manifest.longest
        return bound.astype(np.float32).reshape(-1)

    def _settled(
        self, vectors: np.ndarray, scores: np.ndarray, rows: np.ndarray, margin: np.ndarray
    ) -> np.ndarray:
        """The scores, of which those that differ by rounding are replaced by FAISS's."""
        import faiss

        there = rows >= 0
        near: np.ndarray = np.zeros(rows.shape, dtype=bool)
        close = (scores[:, :-1] <= scores[:, 1:] + margin[:, None]) & there[:, 1:]
        near[:, :-1] |= close
        near[:, 1:] |= close
        wanted = np.unique(rows[near])
        if not len(wanted):
            return scores
        documents: np.ndarray = np.empty((len(wanted), self.manifest.plan.dimension), dtype=np.float32)
        for start in range(0, len(wanted), ROWS):
            some = wanted[start : start + ROWS].tolist()
            records = self.connection.client.query(
                self.address.collection, filter=f"row in {some}", output_fields=["row", "vector"]
            )
            if len(records) != len(some):
                raise ArtifactError(f"{self.address} lost documents during the search: load it again")
            for record in records:
                documents[np.searchsorted(wanted, record["row"])] = record["vector"]
        places: np.ndarray = np.where(near, np.searchsorted(wanted, rows), -1).astype(np.int64)
        return np.where(near, inner_products(vectors, faiss.swig_ptr(documents), places), scores)


def find_collection(text: str, parameters: str | None) -> Collection:
    """The collection at an address.

    Args:
        parameters: of Milvus' search, such as "ef=128".

    Raises:
        ArtifactError: there is none, or not all of it was loaded.
        EnvironmentProblem: Milvus is missing or does not answer.
        UsageError: `text` is no address.
    """
    address = Address.parse(text)
    pairs(parameters, "--search-parameters")
    # Milvus Lite makes a directory that is not there.
    if address.directory is not None and not address.directory.exists():
        raise ArtifactError(f"{address}: no such directory, expected one that `mimo export --to milvus` made")
    connection = Connection.to(address)
    with reporting(address, "see the server's log"):
        state = state_of(connection, address)
        names = [] if state.exists else connection.client.list_collections()
    if not state.exists:
        are = f"there are {', '.join(sorted(names))}" if names else "there is none at all"
        raise ArtifactError(f"{address}: no such collection, {are}; name one after #")
    if state.finished is None:
        raise ArtifactError(
            f"{address} was loaded in part: run the `mimo export` command again that was to load it"
            if state.begun
            else f"{address} was not made by `mimo export --to milvus`: docids and encoder are unknown"
        )
    return Collection(address, connection, state.finished, parameters)
