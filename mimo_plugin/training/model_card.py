"""The model card of a trained student: what it was made of, how it scored, how to use it, its limits."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mimo_plugin.student import EncoderOptions, Student

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

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
    student = Student(model, "", EncoderOptions())
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
    student = Student(model, "", EncoderOptions())
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

    student = Student(model, "", EncoderOptions())
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
