"""A tiny world and the commands that write into it, for `test_faults.py` and `performance/reliability.py`."""

import hashlib
import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from helpers.beir import documents, write_folder
from helpers.bench import parallel_folder, write_config
from helpers.checkpoints import plain_xlmr
from helpers.tiny_training import World, text

from mimo_plugin.cli import main
from mimo_plugin.core.files import NOTE, NOTES

Content = Mapping[str, Any]


@dataclass(frozen=True)
class Command:
    """A command of `mimo` that writes.

    Attributes:
        arguments: of the command line, for a place to write to.
        complete: whether what lies in a place would be taken for finished.
        content: of a finished place, what must be the same however it came to be.
        notes: files that say who writes, below the place; it is held for one writer.
    """

    name: str
    arguments: Callable[[Path], list[str]]
    complete: Callable[[Path], bool]
    content: Callable[[Path], Content]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class FaultWorld:
    """Data and models of a few seconds' work.

    Attributes:
        documents: of the collection that is encoded.
        steps: of each training stage.
        texts: of the benchmark that is reproduced.
        encoders: it is reproduced with one or two.
    """

    root: Path
    documents: int
    steps: int
    texts: int
    encoders: int = 2

    @classmethod
    def make(cls, root: Path, **sizes: int) -> "FaultWorld":
        """Writes it; what it holds depends on the sizes alone."""
        world = cls(root, **sizes)
        world._write()
        return world

    @property
    def collection(self) -> str:
        return f"path:{self.root / 'docs'}"

    @property
    def parallel(self) -> str:
        return f"path:{self.root / 'parallel'}"

    @property
    def encoder(self) -> list[str]:
        return ["--encoder", str(self.root / "student"), "--device", "cpu", "--batch-size", "4"]

    def commands(self) -> dict[str, Command]:
        """The commands that write, by name; after `prepare`."""
        root = self.root
        shards = [*self.encoder, "--shard-size", "10"]
        runs = [str(root / "a.trec"), str(root / "b.trec")]
        found = (
            _directory("index", ["index", self.collection, *shards]),
            _directory(
                "index --vectors", ["index", "--vectors", str(root / "vectors"), "--factory", "HNSW32"]
            ),
            _directory("encode", ["encode", self.collection, *shards]),
            _directory("data", ["data", "parallel", "--tsv", f"de={root / 'de.tsv'}"]),
            Command("train", self._train, _trained, _training, (NOTE,)),
            Command("reproduce", self._reproduce, _reproduced, _reproduction, (NOTE,)),
            _file("search", ["search", str(root / "index"), "--topics", self.parallel, "--hits", "20"]),
            _file("fuse", ["fuse", *runs]),
            _file("evaluate", ["evaluate", *runs, "--qrels", self.parallel, "--baseline", "a"], "--json"),
        )
        return {command.name: command for command in found}

    def prepare(self) -> None:
        """Makes the index and the vectors that commands read."""
        for arguments in (
            ["index", self.parallel, *self.encoder, "--output", str(self.root / "index")],
            [
                "encode",
                self.collection,
                *self.encoder,
                "--shard-size",
                "10",
                "--output",
                str(self.root / "vectors"),
            ],
        ):
            if main(arguments):
                raise RuntimeError(f"mimo {' '.join(arguments)} fails")

    def stage1(self, output: Path) -> list[str]:
        """Arguments of a training run of one stage, with its teacher's vectors in `store` beside it."""
        options = [
            "--recipe",
            str(self.root / "recipe.yaml"),
            "--teacher-store",
            str(output.parent / "store"),
        ]
        return ["train", "stage1", *options, "--device", "cpu", "--output", str(output)]

    def _train(self, output: Path) -> list[str]:
        options = ["--recipe", str(self.root / "recipe.yaml"), "--teacher-store", str(output / "store")]
        return ["train", "all", *options, "--device", "cpu", "--output", str(output)]

    def _reproduce(self, output: Path) -> list[str]:
        encoders = [str(self.root / name) for name in ("student", "other")[: self.encoders]]
        options = ["--no-bm25", "--device", "cpu", "--batch-size", "4", "--shard-size", "4"]
        config = str(self.root / "config.yaml")
        return ["reproduce", config, "--encoder", *encoders, *options, "--output", str(output)]

    def _write(self) -> None:
        made = World.make(self.root)
        changes = {"steps": self.steps, "eval_steps": max(self.steps // 4, 1), "log_steps": 1}
        recipe = made.recipe(dev=True, stage1=changes, stage2=changes)
        (self.root / "recipe.yaml").write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
        plain_xlmr(self.root / "other", seed=4)
        write_folder(self.root / "docs", documents(self.documents))
        write_config(self.root / "config.yaml", [parallel_folder(self.root / "parallel", self.texts)])
        pairs = [f"{text('query about {}', n)}\t{text('Frage nach {}', n)}" for n in range(self.documents)]
        (self.root / "de.tsv").write_text("\n".join(pairs) + "\n")
        for seed, name in enumerate("ab"):
            (self.root / f"{name}.trec").write_text(_run(self.texts, seed))


def _run(texts: int, seed: int) -> str:
    """A run that ranks all documents in some order."""
    generator = random.Random(seed)
    docids = [f"{lang}:{number}" for lang in ("de", "fi", "ja") for number in range(texts)]
    lines = []
    for query in (f"{lang}:q{number}" for lang in ("de", "fi", "ja") for number in range(texts)):
        ranked = generator.sample(docids, len(docids))
        lines += [f"{query} Q0 {docid} {rank} {-rank} x\n" for rank, docid in enumerate(ranked, start=1)]
    return "".join(lines)


def _directory(name: str, arguments: list[str]) -> Command:
    def content(output: Path) -> Content:
        return digests(path for path in output.rglob("*") if ".arrow" not in path.name)

    return Command(
        name,
        lambda output: [*arguments, "--output", str(output)],
        lambda output: (output / "manifest.json").exists(),
        lambda output: {
            str(Path(path).relative_to(output)): found for path, found in content(output).items()
        },
        (NOTE,),
    )


def _file(name: str, arguments: list[str], option: str = "--output") -> Command:
    return Command(
        name,
        lambda output: [*arguments, option, str(output)],
        lambda output: output.exists(),
        lambda output: {"file": hashlib.sha256(output.read_bytes()).hexdigest()},
    )


def digests(paths: Any) -> dict[str, str]:
    """Path -> SHA-256 of the files among paths; what a writer notes of itself does not count."""
    files = (path for path in sorted(paths) if path.is_file() and path.name not in NOTES)
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def _trained(output: Path) -> bool:
    return (output / "stage2" / "manifest.json").exists()


def _training(output: Path) -> Content:
    """Weights, projection and the teacher's vectors; what was drawn and scored."""
    files = [
        *output.glob("stage*/**/*.safetensors"),
        *(output / "store" / name for name in ("vectors", "keys", "sums")),
    ]
    found: dict[str, Any] = {
        str(Path(path).relative_to(output)): value for path, value in digests(files).items()
    }
    for stage in ("stage1", "stage2"):
        manifest = json.loads((output / stage / "manifest.json").read_text())
        found[stage] = {
            name: manifest[name] for name in ("steps", "languages", "best_step", "scores", "files")
        }
    return found


def _reproduced(output: Path) -> bool:
    return (output / "results.json").exists()


def _reproduction(output: Path) -> Content:
    """Runs and indexes byte for byte; the results without dates and times."""
    places = [
        *(output / "runs").glob("*.gz"),
        *(output / "indexes").rglob("*"),
        *(output / "geometry").rglob("*"),
    ]
    found: dict[str, Any] = {
        str(Path(path).relative_to(output)): value for path, value in digests(places).items()
    }
    results = json.loads((output / "results.json").read_text())
    for name in ("date", "command"):
        results["provenance"].pop(name, None)
    for system in results["systems"].values():
        system.pop("seconds", None)
    return {**found, "results": results, "report": (output / "report" / "index.html").is_file()}


def differences(one: Content, other: Content, name: str = "") -> list[str]:
    """Where two contents are not the same."""
    found = []
    for key in {**one, **other}:
        here, there = one.get(key), other.get(key)
        if isinstance(here, Mapping) and isinstance(there, Mapping):
            found += differences(here, there, f"{name}{key}: ")
        elif here != there:
            found.append(f"{name}{key}")
    return found


def unsound(place: Path) -> list[str]:
    """Manifests below a place whose files are not there, or not those that they name."""
    found = []
    for manifest in place.rglob("manifest.json") if place.is_dir() else ():
        for name, record in json.loads(manifest.read_bytes()).get("files", {}).items():
            file = manifest.parent / name
            if not file.is_file() or hashlib.sha256(file.read_bytes()).hexdigest() != record["sha256"]:
                found.append(f"{manifest.relative_to(place)} names {name}, which is not there as it says")
    return found


def leftovers(output: Path) -> list[str]:
    """What a command must not leave where it has finished."""
    if not output.is_dir():
        beside = output.parent.glob(f".{output.name}*") if output.parent.is_dir() else ()
        return [str(path) for path in beside]
    names = ("building", ".discarded", *NOTES, "plan.json", "checkpoints")
    return [
        str(path.relative_to(output))
        for path in output.rglob("*")
        if path.name in names or path.suffix in (".tmp", ".old")
    ]
