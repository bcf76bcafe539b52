"""One byte of a file changed at a time, and what the command that reads it says."""

import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from helpers.fault_world import FaultWorld, digests

from faults.processes import Ended, Process, errors, mimo

Say = Callable[[str], None]


@dataclass(frozen=True)
class Kind:
    """A kind of file, and how it is read back.

    Attributes:
        file: the one that is damaged.
        read: starts the reader, given a place to write to and one for what it prints.
        made: what comes of a file that is whole; only that may come of a damaged one.
        clean: removes what a reader keeps beside the file.
        says: what the message must hold; None is the file's path.
        mended: whether a reader makes again what is damaged, in place of complaining.
        share: of the positions that are tried; a reader may take seconds.
    """

    name: str
    file: Path
    read: Callable[[Path, Path], Process]
    made: Callable[[Path], Any]
    clean: Callable[[], None] = lambda: None
    says: str | None = None
    mended: bool = False
    share: float = 1.0


@dataclass
class Damaged:
    """Attributes:
    named: failed with one line that names the file.
    harmless: did what it does with the whole file, byte for byte.
    silent: did something else without a word.
    faults: all else, each with its position.
    """

    kind: str
    mended: bool
    positions: int = 0
    named: int = 0
    harmless: int = 0
    silent: int = 0
    faults: list[str] = field(default_factory=list)


def damage_test(kind: Kind, base: Path, *, positions: int, seed: int, say: Say) -> dict[str, Any]:
    """Changes one byte at a time, at random places, and reads."""
    base.mkdir(parents=True, exist_ok=True)
    generator = random.Random(f"{kind.name} {seed}")
    whole, output = kind.file.read_bytes(), base / "output"
    kind.clean()
    ended = _read(kind, output, base)
    if ended.status:
        raise SystemExit(f"{kind.name}: its reader fails on what is whole: {' '.join(ended.errors)}")
    expected = kind.made(output)
    found = Damaged(kind.name, kind.mended)
    for _ in range(max(1, round(positions * kind.share))):
        position = generator.randrange(len(whole))
        byte = whole[position] ^ generator.randrange(1, 256)
        found.positions += 1
        with _with(kind, output, whole[:position] + bytes([byte]) + whole[position + 1 :], whole):
            ended = _read(kind, output, base)
            _judge(kind, found, ended, output, expected, f"byte {position} of {len(whole)} made {byte}")
    say(
        f"{kind.name}: {found.positions} positions, {found.named} named, {found.harmless} "
        f"{'mended or ' if kind.mended else ''}harmless, {found.silent} silent, {len(found.faults)} other"
    )
    shutil.rmtree(base)
    return asdict(found)


@contextmanager
def _with(kind: Kind, output: Path, content: bytes, whole: bytes) -> Iterator[None]:
    shutil.rmtree(output, ignore_errors=True)
    output.unlink(missing_ok=True)
    kind.clean()
    kind.file.write_bytes(content)
    try:
        yield
    finally:
        kind.file.write_bytes(whole)


def _judge(kind: Kind, found: Damaged, ended: Ended, output: Path, expected: Any, where: str) -> None:
    said = errors(ended)
    if ended.status == 0:
        if kind.made(output) == expected:
            found.harmless += 1
        else:
            found.silent += 1
    elif (
        ended.status == 1
        and len(said) == 1
        and (kind.says or str(kind.file)) in said[0]
        and "mimo --debug" not in said[0]
    ):
        found.named += 1
    else:
        found.faults.append(f"{where}: status {ended.status}, {' '.join(ended.errors)[-200:]}")


def _read(kind: Kind, output: Path, log: Path) -> Ended:
    return kind.read(output, log).finish()


def _command(arguments: Callable[[Path], list[str]]) -> Callable[[Path, Path], Process]:
    return lambda output, log: mimo(arguments(output), log)


def _library(call: Callable[[], object]) -> Callable[[Path, Path], Process]:
    """A reader that no command of its own leads to; what it finds goes to the output."""

    def read(output: Path) -> int:
        from mimo_plugin.core.errors import MimoError

        try:
            output.write_text(repr(call()))
        except MimoError as error:
            import sys

            print(*(f"mimo: {line}" for line in str(error).splitlines()), sep="\n", file=sys.stderr)
            return 1
        return 0

    return lambda output, log: Process(lambda: read(output), log)


def _content(*names: str) -> Callable[[Path], Any]:
    def made(output: Path) -> Any:
        found = digests([output] if output.is_file() else output.rglob("*"))
        return {path: value for path, value in found.items() if not names or Path(path).name in names}

    return made


def all_kinds(world: FaultWorld, base: Path) -> Iterator[Kind]:
    """Everything that is read back, each with a whole copy of its own below `base`."""
    yield from _vectors(world, base)
    yield from _index(world, base)
    yield from _lexical(world, base)
    yield from _training(world, base)
    yield from _reproduction(world, base)


def _done(arguments: list[str], log: Path) -> None:
    log.mkdir(parents=True, exist_ok=True)
    ended = mimo(arguments, log).finish()
    if ended.status:
        raise SystemExit(f"mimo {' '.join(arguments)} fails: {ended.errors}")


def _vectors(world: FaultWorld, base: Path) -> Iterator[Kind]:
    vectors, commands = base / "vectors", world.commands()
    _done(commands["encode"].arguments(vectors), base)
    index = _command(lambda output: ["index", "--vectors", str(vectors), "--output", str(output)])
    for name, file in (
        ("shard of vectors", "00003.parquet"),
        ("record of a shard", "00003.json"),
        ("manifest of vectors", "manifest.json"),
    ):
        yield Kind(name, vectors / file, index, _content("index", "docid", "lang"))
    begun = base / "begun"
    shutil.copytree(vectors, begun)
    plan = begun / "plan.json"
    _unfinish(begun, plan)

    def read(output: Path, log: Path) -> Process:
        shutil.copytree(begun, output)
        return mimo(commands["encode"].arguments(output), log)

    # A copy is read, and the message says its directory where the plan can be read and is another one.
    made = _content("00003.parquet", "manifest.json")
    yield Kind("plan of vectors in the making", plan, read, made, says="output", share=0.25)


def _unfinish(vectors: Path, plan: Path) -> None:
    """What a kill between the last shard and the manifest leaves."""
    from mimo_plugin.core.artifact import Artifact
    from mimo_plugin.indexing.vectors import VECTORS

    plan.write_text(Artifact(vectors, VECTORS).read().plan.model_dump_json(indent=2) + "\n")
    (vectors / "manifest.json").unlink()


def _index(world: FaultWorld, base: Path) -> Iterator[Kind]:
    index, commands = base / "index", world.commands()
    _done(commands["index"].arguments(index), base)
    search = _command(
        lambda output: [
            "search",
            str(index),
            "--topics",
            world.parallel,
            "--hits",
            "20",
            "--output",
            str(output),
        ]
    )
    for file in ("index", "docid", "manifest.json"):
        yield Kind(f"{file} of an index", index / file, search, _content())

    def languages() -> object:
        from mimo_plugin.indexing.open import read_doc_languages

        return sorted(read_doc_languages(index, [f"d{number}" for number in range(world.documents)]).items())

    yield Kind("lang of an index", index / "lang", _library(languages), lambda output: output.read_text())


def _lexical(world: FaultWorld, base: Path) -> Iterator[Kind]:
    index = base / "bm25"
    queries = [(f"q{number}", "talo haku") for number in range(3)]

    def build() -> int:
        from mimo_plugin.collections.pool import load
        from mimo_plugin.pyserini.bm25 import index_bm25

        index_bm25(load(world.collection), index, progress=False)
        return 0

    def search() -> object:
        from mimo_plugin.pyserini.bm25 import search_bm25

        found = search_bm25(index, queries, hits=20)
        return [(query_id, docids, scores.tolist()) for query_id, docids, scores in found]

    ended = Process(build, base).finish()
    if ended.status:
        raise SystemExit(f"the BM25 index cannot be built: {ended.errors}")
    for file in ("manifest.json", *(path.name for path in sorted(index.glob("_0*")))):
        name = "manifest of a BM25 index" if file == "manifest.json" else f"Lucene's {file}"
        yield Kind(
            name,
            index / file,
            _library(search),
            lambda output: output.read_text(),
            share=1 if name[0] == "m" else 0.1,
        )


def _training(world: FaultWorld, base: Path) -> Iterator[Kind]:
    run, pairs = base / "training" / "run", world.root / "pairs"
    _done(world.stage1(run), base / "training")
    store = run.parent / "store"
    weights = _content("model.safetensors", "projection.safetensors")

    def without_copies() -> None:
        for path in pairs.glob(".*.arrow*"):
            path.unlink()

    stored = {path: path.read_bytes() for path in store.iterdir()}

    def as_it_was() -> None:
        # Vectors that seemed to be missing were added.
        for path, content in stored.items():
            path.write_bytes(content)

    def stage1(output: Path) -> list[str]:
        arguments = world.stage1(output)
        arguments[arguments.index("--teacher-store") + 1] = str(store)
        return arguments

    def stage2(output: Path) -> list[str]:
        arguments = stage1(output)
        arguments[1] = "stage2"
        return [*arguments, "--student", str(run)]

    copy = next(pairs.glob(".*.arrow"))
    yield Kind("Arrow copy of training data", copy, _command(stage1), weights, mended=True, share=0.1)
    for file in ("manifest.json", "pairs-00000.parquet"):
        name = "manifest of training data" if file == "manifest.json" else "Parquet of training data"
        yield Kind(name, pairs / file, _command(stage1), weights, without_copies, share=0.25)
    for file in ("manifest.json", "keys", "sums", "vectors"):
        yield Kind(
            f"{file} of a teacher store", store / file, _command(stage1), weights, as_it_was, share=0.1
        )
    for file in (
        "manifest.json",
        "projection.safetensors",
        "model/model.safetensors",
        "model/tokenizer.json",
    ):
        yield Kind(f"{file} of a training run", run / file, _command(stage2), weights, share=0.1)


def _reproduction(world: FaultWorld, base: Path) -> Iterator[Kind]:
    command, whole = world.commands()["reproduce"], base / "reproduction"
    _done(command.arguments(whole), base)

    def read(output: Path, log: Path) -> Process:
        shutil.copytree(whole, output, symlinks=True)
        return mimo(command.arguments(output), log)

    files = {
        "note of a run": whole / "runs" / "student.json",
        "run of a reproduction": whole / "runs" / "student.trec.gz",
        "note of a collection": next((whole / "collections").glob("*.json")),
        "geometry of an encoder": next((whole / "geometry").glob("*.json")),
    }
    for name, file in files.items():
        yield Kind(name, file, read, command.content, mended=True, share=0.1)
