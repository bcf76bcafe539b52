"""Training data, students and teachers so small that a run takes a second."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from helpers.beir import write_folder
from helpers.checkpoints import plain_xlmr

from mimo_plugin.data.writers import PairsWriter, TableWriter
from mimo_plugin.training.data import NegativesRecord
from mimo_plugin.training.recipe import Recipe, RunSettings
from mimo_plugin.training.run import Trained
from mimo_plugin.training.stages import STAGE1, STAGE2, run_stages

LANGUAGES = ("de", "en", "ru")
QUERY = {"de": "Frage nach {}", "en": "query about {}", "ru": "вопрос о {}"}
PASSAGE = {
    "de": "Die Antwort auf {} ist nicht so kurz",
    "en": "The answer to {} is long",
    "ru": "Ответ на {} и ещё слова",
}


def text(template: str, number: int) -> str:
    """Different numbers give texts that differ in tokens that the tiny tokenizer knows."""
    words = ["such", "satz", "lause", "many", "short", "viele", "engine", "hak"]
    return template.format(" ".join(words[int(digit)] for digit in oct(number + 64)[2:]))


def write_pairs(directory: Path, count: int = 60) -> Path:
    with PairsWriter(directory, anchor="en", parameters={}, source={"made": "up"}) as writer:
        for number in range(count):
            for lang in LANGUAGES:
                writer.add(text(QUERY[lang], number), lang, text(QUERY["en"], number))
    return directory


def write_table(
    directory: Path,
    count: int = 60,
    *,
    anchor: str = "en",
    langs: Sequence[str] = LANGUAGES,
    negatives: int = 0,
) -> Path:
    """Every third row lacks Russian; with `negatives`, every fifth row has one negative fewer."""
    with TableWriter(directory, anchor=anchor, parameters={}, source={"made": "up"}) as writer:
        for number in range(count):
            own = [lang for lang in langs if lang != "ru" or number % 3]
            versions = {lang: (text(QUERY[lang], number), text(PASSAGE[lang], number)) for lang in own}
            most = negatives - (number % 5 == 0)
            mined = [f"p{(number + k) % count}" for k in range(1, most + 1)] if negatives else None
            writer.add(f"q{number}", f"p{number}", versions, mined)
        if negatives:
            rows = {negatives: count - -(-count // 5), negatives - 1: -(-count // 5)}
            writer.negatives = NegativesRecord(encoder="none", rows=rows, missed=0)
    return directory


def write_dev(directory: Path, count: int = 24) -> str:
    docs = [
        {"_id": f"{lang}:{number}", "text": text(PASSAGE[lang], number), "lang": lang}
        for number in range(count)
        for lang in LANGUAGES
    ]
    queries = [
        {"_id": f"{lang}:q{number}", "text": text(QUERY[lang], number), "lang": lang}
        for number in range(count)
        for lang in LANGUAGES
    ]
    qrels = {
        f"{lang}:q{number}": {f"{other}:{number}": 1 for other in LANGUAGES}
        for number in range(count)
        for lang in LANGUAGES
    }
    return write_folder(directory, docs, queries, qrels)


def student(directory: Path, *, dropout: float = 0.1, **shape: Any) -> Path:
    """A plain XLM-R with random weights."""
    plain_xlmr(directory, **shape)
    path = directory / "config.json"
    config = json.loads(path.read_text())
    config |= {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    path.write_text(json.dumps(config))
    return directory


@dataclass(frozen=True)
class World:
    """Attributes:
    root: directory of everything.
    dev: spec of the dev collection.
    """

    root: Path
    dev: str

    @classmethod
    def make(cls, root: Path, *, dropout: float = 0.1) -> "World":
        student(root / "student", dropout=dropout)
        student(root / "teacher", seed=9, hidden=16)
        write_pairs(root / "pairs")
        write_table(root / "table")
        return cls(root, write_dev(root / "dev"))

    def recipe(self, *, dev: bool = False, **changes: Any) -> Recipe:
        """A recipe of a few steps.

        Args:
            changes: sections and fields, sections merged into what is there.
        """
        shared = {"batch_size": 8, "max_length": 24, "learning_rate": 1e-3, "precision": "float32"}
        values: dict[str, Any] = {
            "student": {"checkpoint": str(self.root / "student")},
            "teacher": {"checkpoint": str(self.root / "teacher")},
            "pairs": str(self.root / "pairs"),
            "table": str(self.root / "table"),
            "dev": self.dev if dev else None,
            "seed": 3,
            "stage1": {**shared, "steps": 6, "log_steps": 2},
            "stage2": {**shared, "steps": 6, "log_steps": 2, "mini_batch_size": 3},
        }
        for name, value in changes.items():
            values[name] = {**values.get(name, {}), **value} if isinstance(value, dict) else value
        return Recipe.model_validate(values)

    def job(self, output: Path, **changes: Any) -> RunSettings:
        settings = {"teacher_store": self.root / "store", "device": "cpu", "progress": False}
        return RunSettings(output=output, **(settings | changes))


def train_both(recipe: Recipe, settings: RunSettings) -> list[Trained]:
    return list(run_stages(recipe, settings, [STAGE1, STAGE2]))


def weights(directory: Path) -> dict[str, Any]:
    """All tensors of a run: the checkpoint's and the projection."""
    from safetensors.numpy import load_file

    found: dict[str, Any] = {}
    for path in sorted([*(directory / "model").rglob("*.safetensors"), *directory.glob("*.safetensors")]):
        found |= {f"{path.name}:{name}": tensor for name, tensor in load_file(path).items()}
    return found


def same_weights(one: Path, other: Path) -> bool:
    """Bit for bit."""
    first, second = weights(one), weights(other)
    return first.keys() == second.keys() and all(
        first[name].tobytes() == second[name].tobytes() for name in first
    )
