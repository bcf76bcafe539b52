"""What a run leaves: the student, its card, its identity."""

import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mimo_plugin.core.artifact import FileRecord
from mimo_plugin.core.environment import without_model_bars
from mimo_plugin.core.errors import ArtifactError, ModelError
from mimo_plugin.encoder.encoder import Encoder, EncoderOptions
from mimo_plugin.training.data import Pairs, Table
from mimo_plugin.training.recipe import Recipe, StageOptions
from mimo_plugin.training.run import writing_tensors

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from mimo_plugin.training.teacher_store import TeacherStore

_OBJECTIVES = {
    "mimo": "distillation from an English teacher together with a cross-lingual contrastive loss (MIMO)",
    "xlco": "a cross-lingual contrastive loss (XLCO)",
    "infonce": "a contrastive loss within each language (InfoNCE)",
    "lakda": "a contrastive loss with alignment of score distributions between languages (LaKDA)",
}
_STAGES = {"stage1": "distillation from an English teacher (MIMO, stage 1)"}


@dataclass(frozen=True)
class ModelCard:
    """What a run can tell of itself. What is missing is left out of the card.

    Attributes:
        recipe: all that decides the weights: stage, seed, student, teacher, options, nested as it comes.
        data: name, rows, languages (language -> rows), fingerprint, source of the training data.
        scores: measure -> value on the dev collection.
        environment: versions, device, commit.
    """

    recipe: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    scores: Mapping[str, float] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)


def render_card(model: "SentenceTransformer", name: str, card: ModelCard) -> str:
    """The text of `README.md`.

    Args:
        name: of the checkpoint.
    """
    parts = [
        _front_matter(card),
        f"# {name}\n\n{_summary(model, card)}",
        _usage(model, name),
        _section("Training data", _table(("", ""), _rows(card.data))),
        _section("Recipe", _table(("", ""), _rows(card.recipe))),
        _section("Scores", _scores(card)),
        _section("Made with", _table(("", ""), _rows(card.environment))),
        _section("Limits", _limits(model, card)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _front_matter(card: ModelCard) -> str:
    import yaml

    head: dict[str, Any] = {
        "library_name": "sentence-transformers",
        "pipeline_tag": "feature-extraction",
        "tags": [
            "sentence-transformers",
            "feature-extraction",
            "multilingual",
            "retrieval",
            "mimo",
            "pyserini",
        ],
    }
    if languages := _languages(card):
        head["language"] = languages
    base = str(_at(card.recipe, "student", "checkpoint") or "")
    # Only a hub id has a page that a card can lead to.
    if base.count("/") == 1 and not base.startswith((".", "/")) and not Path(base).exists():
        head["base_model"] = base
    return f"---\n{yaml.safe_dump(head, sort_keys=False, allow_unicode=True)}---"


def _summary(model: "SentenceTransformer", card: ModelCard) -> str:
    student = Encoder.of(model, "", EncoderOptions())
    stage = str(card.recipe.get("stage", ""))
    objective = str(_at(card.recipe, "options", "objective") or "")
    how = _STAGES.get(stage) or _OBJECTIVES.get(objective)
    base, teacher = _at(card.recipe, "student", "checkpoint"), _at(card.recipe, "teacher", "checkpoint")
    lines = ["An encoder of queries and documents for multilingual dense retrieval with Pyserini."]
    if base:
        lines.append(f"Base: `{_shown(base)}`.")
    if how:
        lines.append(f"Trained with {how}.")
    if teacher:
        lines.append(f"Teacher: `{_shown(teacher)}`; it is not needed to use the model.")
    normalised = "L2-normalised" if student.normalizes else "not normalised"
    lines.append(
        f"{student.dimension} dimensions, {student.pooling} pooling, {normalised}, at most "
        f"{student.max_length} tokens."
    )
    prompts = {"query": student.query_prompt, "document": student.document_prompt}
    for role, prompt in prompts.items():
        lines.append(f"Before each {role}: `{prompt}`." if prompt else f"Nothing is put before a {role}.")
    return " ".join(lines)


def _usage(model: "SentenceTransformer", name: str) -> str:
    student = Encoder.of(model, "", EncoderOptions())
    text = f"""## Use

```python
from sentence_transformers import SentenceTransformer

model = SentenceTransformer("{name}")
scores = model.similarity(model.encode_query(["..."]), model.encode_document(["...", "..."]))
```

```
mimo index path:my-collection --encoder {name} --output my-index
mimo search my-index --topics path:my-collection --output run.trec
```"""
    if beyond := beyond_stock(model):
        return (
            f"{text}\n\nStock Pyserini's `auto` encoder gives other vectors: it knows nothing of "
            f"{', '.join(beyond)}. `mimo pyserini ... --encoder-class mimo` runs its commands with its own."
        )
    norm = f"--pooling {student.pooling}" + (" --l2-norm" if student.normalizes else "")
    return f"""{text}

Stock Pyserini needs to be told what the files say:

```
python -m pyserini.encode input --corpus corpus.jsonl --fields text output --embeddings my-index --to-faiss \\
  encoder --encoder {name} --encoder-class auto --fields text {norm} \\
  --dimension {student.dimension} --max-length {student.max_length}
python -m pyserini.search.faiss --encoder {name} --encoder-class auto {norm} \\
  --index my-index --topics topics.tsv --output run.trec
```"""


def beyond_stock(model: "SentenceTransformer") -> list[str]:
    """What of a model Pyserini's own `auto` encoder and plain transformers leave out; empty where nothing."""
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    student = Encoder.of(model, "", EncoderOptions())
    plain = (Transformer, Pooling, Normalize)
    found = sorted({f"its {type(module).__name__} module" for module in model if type(module) not in plain})
    if [type(module) for module in model] not in ([*plain], [*plain[:2]]) and not found:
        found.append("the order of its modules")
    pads_left = getattr(model.tokenizer, "padding_side", "right") != "right"
    if student.pooling != "mean" and (student.pooling != "cls" or pads_left):
        found.append(f"{student.pooling} pooling")
    if model.truncate_dim is not None:
        found.append(f"vectors cut to {model.truncate_dim} dimensions")
    if student.query_prompt or student.document_prompt:
        found.append("prompts")
    if getattr(model[0], "do_lower_case", False):
        found.append("texts put into lower case")
    return found


def _scores(card: ModelCard) -> str:
    table = _table(("measure", "value"), [(name, f"{value:.4f}") for name, value in card.scores.items()])
    dev = card.recipe.get("dev")
    return f"On `{_shown(dev)}`, which also chose the checkpoint.\n\n{table}" if table and dev else table


def _limits(model: "SentenceTransformer", card: ModelCard) -> str:
    languages = _languages(card)
    lines = []
    if languages:
        lines.append(f"It was trained on {', '.join(languages)}; nothing is known of other languages.")
    lines.append(f"What goes beyond {model.max_seq_length} tokens of a text is not read.")
    anchor = _at(card.recipe, "data", "anchor") or card.data.get("anchor")
    if anchor and card.recipe.get("teacher"):
        lines.append(f"Its space is that of a teacher that read {anchor}, with what the teacher gets wrong.")
    if card.scores:
        lines.append("The scores are of one collection and one seed.")
    return "\n".join(f"- {line}" for line in lines)


def _section(title: str, body: str) -> str:
    return f"## {title}\n\n{body}" if body else ""


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return ""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def _rows(values: Mapping[str, Any]) -> list[tuple[str, str]]:
    shown = ((name, _shown(value)) for name, value in _flat(values) if value is not None)
    return [(name, text) for name, text in shown if text]


def _flat(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        counts = isinstance(value, Mapping) and all(isinstance(inner, int) for inner in value.values())
        if isinstance(value, Mapping) and not counts:
            yield from _flat(value, f"{before}{name}.")
        else:
            yield f"{before}{name}", value


def _shown(value: Any) -> str:
    """One line for a reader; of a place on this machine only its last name."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {inner}" for name, inner in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_shown(inner) for inner in value)
    text = " ".join(str(value).split())
    place = text.removeprefix("path:")
    return Path(place).name if Path(place).is_absolute() else text


def _languages(card: ModelCard) -> list[str]:
    languages = card.data.get("languages")
    return sorted(languages) if isinstance(languages, Mapping) else []


def _at(values: Mapping[str, Any], *names: str) -> Any:
    found: Any = values
    for name in names:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found


_CARD = "README.md"
# Either is in every checkpoint.
_SIGNS = ("modules.json", "config.json")


def save_student(
    model: "SentenceTransformer",
    directory: Path,
    *,
    card: ModelCard | None = None,
    add: Callable[[Path], object] = lambda _: None,
) -> None:
    """Writes a checkpoint with its model card; what lies in its place is whole at any moment.

    Where an earlier checkpoint is replaced there is none for the time between two renames.

    Weights are safetensors and nothing is pickled.

    Args:
        directory: new, empty, or an earlier checkpoint, which is replaced.
        card: what is known of how the model came to be.
        add: writes further files into the directory that it is given.

    Raises:
        ArtifactError: something else lies there.
        EnvironmentProblem: the file system refuses.
        ModelError: a weight is NaN or infinite.
    """
    _require_finite(model)
    _refuse_foreign(directory)
    _forget_last_call(model)
    directory = directory.resolve()
    beside = directory.with_name(f".{directory.name}.{os.getpid()}.tmp")
    replaced = directory.with_name(f".{directory.name}.{os.getpid()}.old")
    try:
        with writing_tensors(directory):
            directory.parent.mkdir(parents=True, exist_ok=True)
            with without_model_bars():
                model.save_pretrained(str(beside), create_model_card=False, safe_serialization=True)
            (beside / _CARD).write_text(
                render_card(model, directory.name, card or ModelCard()), encoding="utf-8"
            )
            add(beside)
            _settle(beside)
            if directory.exists():
                directory.rename(replaced)
            beside.rename(directory)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)


def _require_finite(model: "SentenceTransformer") -> None:
    import torch

    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise ModelError(f"the student is not saved: its weights {name} hold NaN or infinity")


def _forget_last_call(model: "SentenceTransformer") -> None:
    """A tokenizer keeps the length and padding of its last call, which would differ after a resume."""
    backend = getattr(model.tokenizer, "backend_tokenizer", None)
    if backend is not None:
        backend.no_truncation()
        backend.no_padding()


def _refuse_foreign(directory: Path) -> None:
    if directory.exists() and not directory.is_dir():
        raise ArtifactError(f"{directory} is a file: a checkpoint is a directory, new, empty or a checkpoint")
    names = sorted(path.name for path in directory.iterdir()) if directory.is_dir() else []
    if names and not any(sign in names for sign in _SIGNS):
        raise ArtifactError(
            f"{directory} holds something else ({', '.join(names[:5])}): a checkpoint needs a new or empty "
            "directory, or replaces an earlier checkpoint"
        )


def _settle(directory: Path) -> None:
    """Has all files on the disk, and the weights readable by whom the others are."""
    files = [path for path in directory.rglob("*") if path.is_file()]
    mode = (directory / _CARD).stat().st_mode
    for path in files:
        path.chmod(mode)
        with path.open("rb") as file:
            os.fsync(file.fileno())


def identity_of(
    stage: str,
    recipe: Recipe,
    options: StageOptions,
    data: Pairs | Table,
    student: str | None,
    *,
    taught: bool,
    projection: Path | None,
) -> dict[str, Any]:
    """All that decides the weights, as plain data.

    Args:
        student: fingerprint of the student; None for a new one.
        taught: whether there is a teacher.
        projection: file of a carried projection.
    """
    identity: dict[str, Any] = {
        "stage": stage,
        "seed": recipe.seed,
        "student": {**recipe.student.identity(), "fingerprint": student},
        "data": {
            "path": str(data.directory),
            "fingerprint": data.fingerprint,
            "anchor": data.manifest.anchor,
            "rows": data.manifest.rows,
        },
        "dev": recipe.dev,
        "options": options.identity(),
    }
    if taught:
        identity["teacher"] = recipe.teacher.identity()
    if projection is not None:
        identity["projection"] = FileRecord.of(projection).sha256
    return identity


def teacher_vectors(store: "TeacherStore") -> dict[str, Any]:
    """What the teacher turned out to be."""
    found = store.manifest.identity
    return found.model_dump(
        include={"fingerprint", "query_prompt", "passage_prompt", "max_length", "compute_dtype", "attention"}
    )


def only_vectors(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Of an identity, what the teacher turned out to be."""
    vectors = identity.get("teacher", {}).get("vectors")
    # Earlier versions had one number format, and did not say so.
    return {"teacher": {"vectors": vectors and {"compute_dtype": "float32", "attention": None, **vectors}}}


def without_places(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Without where things lie, and what a name turns out to be: the same data or student elsewhere is the
    same."""
    flat = {name: value for name, value in identity.items() if name not in ("data", "teacher")}
    if "teacher" in identity:
        flat["teacher"] = {name: value for name, value in identity["teacher"].items() if name != "vectors"}
        # Earlier versions had no choice, and did not say so.
        flat["options"] = {"projection_input": "normalized", **identity.get("options", {})}
    data = dict(identity.get("data", {}))
    data.pop("path", None)
    student = dict(identity.get("student", {}))
    if not str(student.get("checkpoint", "")).startswith("new:"):
        student.pop("checkpoint", None)
    return {**flat, "data": data, "student": student}
