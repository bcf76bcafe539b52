"""A checkpoint on disk, with its model card."""

import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mimo_plugin.collections.records import usual_language
from mimo_plugin.core.environment import without_model_bars
from mimo_plugin.core.errors import ArtifactError, ModelError
from mimo_plugin.encoder import packaged
from mimo_plugin.encoder.checkpoint import files_root
from mimo_plugin.encoder.encoder import Encoder
from mimo_plugin.encoder.packaged import PACKAGES
from mimo_plugin.training.cut import cut_record
from mimo_plugin.training.run import writing_tensors

if TYPE_CHECKING:
    from huggingface_hub import ModelCardData
    from sentence_transformers import SentenceTransformer

_HOW = {
    "stage1": "distillation from a frozen teacher (MIMO, stage 1)",
    "mimo": "distillation from a frozen teacher together with a cross-lingual contrastive loss (MIMO)",
    "xlco": "a cross-lingual contrastive loss (XLCO)",
    "infonce": "a contrastive loss within each language (InfoNCE)",
    "lakda": "a contrastive loss with alignment of score distributions between languages (LaKDA)",
}
_TAGS = [
    "sentence-transformers",
    "sentence-similarity",
    "feature-extraction",
    "multilingual",
    "retrieval",
    "mimo",
    "pyserini",
]
# First part of an id of ir_datasets -> the same data on the hub.
_ON_HUB = {"miracl": "miracl/miracl", "mmarco": "unicamp-dl/mmarco", "mr-tydi": "castorini/mr-tydi"}


@dataclass(frozen=True)
class ModelCard:
    """Facts about a run for its model card, which leaves out missing ones.

    Attributes:
        recipe: the run's identity: stage, seed, student, teacher, options.
        data: name, rows, languages (language -> rows), fingerprint, source of the training data.
        scores: measure -> value on the dev collection.
        environment: versions, device, commit.
    """

    recipe: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] = field(default_factory=dict)
    scores: Mapping[str, float] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)


def render_card(model: "SentenceTransformer", name: str, card: ModelCard) -> str:
    """The text of `README.md` for the checkpoint `name`."""
    from jinja2 import ChainableUndefined, Environment, PackageLoader

    head = _metadata(card)
    base = head.base_model or str(card.recipe.get("student", {}).get("checkpoint", ""))
    stage = card.recipe.get("stage")
    environment = Environment(loader=PackageLoader("mimo_plugin.training", ""), undefined=ChainableUndefined)
    environment.filters |= {
        "rows": _rows,
        "shown": _shown,
        "model": lambda name: f"`{PACKAGES[name].hub}`" if name in PACKAGES else f"`{_shown(name)}`",
        "cell": lambda text: text.replace("|", "\\|"),
    }
    return environment.get_template("model_card.md.jinja").render(
        vars(card),
        head=head.to_yaml(),
        base=base,
        name=name,
        how=_HOW.get(stage if stage == "stage1" else card.recipe.get("options", {}).get("objective", "")),
        model=model,
        student=Encoder.of(model, ""),
        cut=cut_record(model),
        beyond=beyond_stock(model),
    )


def _metadata(card: ModelCard) -> "ModelCardData":
    """The card's metadata, with what the card of the student before training says."""
    from huggingface_hub import ModelCardData

    start = str(card.recipe.get("student", {}).get("checkpoint", ""))
    before = {"license": PACKAGES[start].license} if start in PACKAGES else card_metadata(start)
    codes = {re.split("[-_]", usual_language(language))[0] for language in card.data.get("languages", {})}
    languages, datasets = set(filter(None, codes)), set(_hub_datasets(card.data.get("source")))
    base = None
    if start in PACKAGES:
        base = PACKAGES[start].hub
    # A card can only link to a hub id.
    elif start.count("/") == 1 and not start.startswith((".", "/")) and not Path(start).exists():
        base = start
    elif "mimo" in _several(before.get("tags")):
        # An earlier stage, or another student of this package.
        base = before.get("base_model")
        languages |= _several(before.get("language"))
        datasets |= _several(before.get("datasets"))
    return ModelCardData(
        license=before.get("license"),
        library_name="sentence-transformers",
        pipeline_tag="sentence-similarity",
        tags=_TAGS,
        language=sorted(languages) or None,
        datasets=sorted(datasets) or None,
        base_model=base,
    )


def _several(value: Any) -> set[str]:
    """The values of a field that has one or several."""
    return {value} if isinstance(value, str) else set(value or ())


def card_metadata(checkpoint: str) -> dict[str, Any]:
    """The metadata in a checkpoint's card; {} without a card on this machine, or if it is not valid."""
    from huggingface_hub import metadata_load

    root = files_root(packaged.resolve(checkpoint), fetch=False) if checkpoint else None
    try:
        return dict(metadata_load(root / _CARD) or {}) if root else {}
    except Exception:  # of the YAML parser, too: anybody may have written the card
        return {}


def hub_dataset(collection: str) -> str | None:
    """The id on the hub of a collection of ir_datasets, if it is known."""
    return _ON_HUB.get(collection.partition("/")[0]) if "/" in collection else None


def _hub_datasets(source: Any) -> Iterator[str]:
    """Ids on the hub of the data that a manifest of training data names as its sources."""
    if isinstance(source, Mapping):
        if source.get("kind") == "dataset" and "files" not in source:
            yield source["name"]
        source = list(source.values())
    if isinstance(source, list | tuple):
        for part in source:
            yield from _hub_datasets(part)
    elif isinstance(source, str) and (found := hub_dataset(source)):
        yield found


def beyond_stock(model: "SentenceTransformer") -> list[str]:
    """Parts of a model that Pyserini's own `auto` encoder and plain transformers ignore."""
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    student = Encoder.of(model, "")
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


def _rows(values: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, str]]:
    """(dotted name, value) rows of a nested mapping, without empty values."""
    for name, value in values.items():
        counts = isinstance(value, Mapping) and all(isinstance(inner, int) for inner in value.values())
        if isinstance(value, Mapping) and not counts:
            yield from _rows(value, f"{before}{name}.")
        elif value is not None and (text := _shown(value)):
            yield f"{before}{name}", text


def _shown(value: Any) -> str:
    """A value as one line; of an absolute path only the last part."""
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {inner}" for name, inner in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_shown, value))
    text = " ".join(str(value).split())
    place = Path(text.removeprefix("path:"))
    return place.name if place.is_absolute() else text


_CARD = "README.md"
# Every checkpoint has one of them.
_SIGNS = {"modules.json", "config.json"}


def save_student(
    model: "SentenceTransformer",
    directory: Path,
    *,
    card: ModelCard | None = None,
    add: Callable[[Path], object] = lambda _: None,
) -> None:
    """Writes a checkpoint with its model card; the directory never holds an incomplete one.

    When an earlier checkpoint is replaced, the directory is missing between two renames. Weights are
    safetensors, and nothing is pickled.

    Args:
        directory: new, empty, or an earlier checkpoint, which is replaced.
        add: writes further files into the directory that it gets.

    Raises:
        ArtifactError: the directory holds something else.
        EnvironmentProblem: the file system refuses.
        ModelError: a weight is NaN or infinite.
    """
    import torch

    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise ModelError(f"the student is not saved: its weights {name} hold NaN or infinity")
    _refuse_foreign(directory)
    # A tokenizer keeps the length and padding of its last call, which would differ after a resume.
    if (tokenizer := getattr(model.tokenizer, "backend_tokenizer", None)) is not None:
        tokenizer.no_truncation()
        tokenizer.no_padding()
    directory = directory.resolve()
    beside, replaced = (
        directory.with_name(f".{directory.name}.{os.getpid()}.{end}") for end in ("tmp", "old")
    )
    try:
        with writing_tensors(directory):
            directory.parent.mkdir(parents=True, exist_ok=True)
            with without_model_bars():
                model.save_pretrained(str(beside), create_model_card=False, safe_serialization=True)
            text = render_card(model, directory.name, card or ModelCard())
            (beside / _CARD).write_text(text, encoding="utf-8")
            add(beside)
            _sync(beside)
            if directory.exists():
                directory.rename(replaced)
            beside.rename(directory)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)


def _refuse_foreign(directory: Path) -> None:
    if directory.exists() and not directory.is_dir():
        raise ArtifactError(
            f"{directory} is a file, expected a new or empty directory or an earlier checkpoint"
        )
    names = {path.name for path in directory.iterdir()} if directory.is_dir() else set()
    if names and not names & _SIGNS:
        raise ArtifactError(
            f"{directory} holds something else ({', '.join(sorted(names)[:5])}), expected a new or empty "
            "directory or an earlier checkpoint"
        )


def _sync(directory: Path) -> None:
    """Writes all files to disk, and gives the weights the permissions of the others."""
    mode = (directory / _CARD).stat().st_mode
    for path in directory.rglob("*"):
        if path.is_file():
            path.chmod(mode)
            with path.open("rb") as file:
                os.fsync(file.fileno())
