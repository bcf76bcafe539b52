"""From a checkpoint's files to a `SentenceTransformer`: loading, the user's overrides, identity."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mimo_plugin.errors import EnvironmentProblem, ModelError, UsageError
from mimo_plugin.network import reachable
from mimo_plugin.quiet import without_model_bars

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


def check_device(device: str | None) -> str:
    """The torch device that a name stands for; None is the fastest that is there.

    Raises:
        EnvironmentProblem: torch does not see that device.
        UsageError: no such kind of device.
    """
    import torch
    from sentence_transformers.util import get_device_name

    if device is None:
        return str(get_device_name())
    try:
        parsed = torch.device(device)
    except RuntimeError:
        raise UsageError(f"unknown device {device!r}: cpu, cuda, cuda:N or mps was expected") from None
    if parsed.type == "cuda" and (parsed.index or 0) >= torch.cuda.device_count():
        raise EnvironmentProblem(
            f"device {device} was asked for and torch sees {torch.cuda.device_count()} CUDA devices: "
            "use --device cpu, or install a torch build for this machine's GPU"
        )
    if parsed.type == "mps" and not torch.backends.mps.is_available():
        raise EnvironmentProblem("device mps was asked for and torch does not see it: use --device cpu")
    return device


def load_model(
    path: str, checkpoint: str, device: str, *, attention: str | None = None
) -> "SentenceTransformer":
    """Loads a directory or a hub id as float32; `checkpoint` is its name in messages.

    Only safetensors weights are read and no code from the checkpoint is run.

    Raises:
        ModelError: there is no such checkpoint, or it cannot be loaded.
    """
    import torch
    from sentence_transformers import SentenceTransformer

    directory = Path(path)
    if directory.is_dir():
        if not (directory / "config.json").is_file() and not (directory / "modules.json").is_file():
            raise ModelError(
                f"{path} holds no checkpoint: neither config.json nor modules.json is in it; expected a "
                "sentence-transformers or Hugging Face directory"
            )
        if not any(directory.rglob("*.safetensors")):
            raise ModelError(
                f"{path} holds no *.safetensors file and other weight formats are not read: "
                "save it again with save_pretrained()"
            )
    elif directory.is_absolute() or path.startswith(("./", "../")) or path.count("/") > 1:
        raise ModelError(f"{path}: no such directory; expected a checkpoint's directory or a hub id")
    try:
        with without_model_bars():
            return SentenceTransformer(
                path,
                device=device,
                trust_remote_code=False,
                local_files_only=_only_local(path),
                model_kwargs={
                    "use_safetensors": True,
                    "dtype": torch.float32,
                    **({} if attention is None else {"attn_implementation": attention}),
                },
            )
    except Exception as error:
        reason = " ".join(str(error).split())
        raise ModelError(
            f"{checkpoint} cannot be loaded: {type(error).__name__}: {reason[:500]} (expected a directory, "
            "or the id of a hub checkpoint that is in the local cache or can be fetched)"
        ) from error


def _only_local(path: str) -> bool:
    """A directory, or a hub that does not answer: what is in the local cache is used."""
    from huggingface_hub import constants

    return Path(path).is_dir() or constants.HF_HUB_OFFLINE or not reachable([constants.ENDPOINT])


def has_modules_file(path: str) -> bool:
    """Whether a checkpoint is in sentence-transformers layout, so that its own files decide."""
    from sentence_transformers.util import is_sentence_transformer_model

    return bool(is_sentence_transformer_model(path, local_files_only=_only_local(path)))


def apply_overrides(
    model: "SentenceTransformer",
    own_modules: bool,
    *,
    pooling: str | None,
    normalize: bool | None,
    max_length: int | None,
) -> None:
    """Changes what the user asked to change; None leaves what the checkpoint's own files say.

    Raises:
        UsageError: the checkpoint cannot be run that way.
    """
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling

    names = list(model._modules)
    normalized = normalizes(model)
    if pooling is not None:
        position = next((name for name in names if isinstance(model._modules[name], Pooling)), None)
        if position is None:
            raise UsageError("the checkpoint has no pooling of its own that --pooling could replace")
        dimension = model._modules[position].embedding_dimension
        model._modules[position] = Pooling(dimension, pooling_mode=pooling)
    wanted = (normalized or not own_modules) if normalize is None else normalize
    if wanted and not normalized:
        model.add_module(str(len(names)), Normalize())
    while not wanted and normalizes(model):
        del model._modules[next(reversed(model._modules))]
    if max_length is not None:
        most = capacity(model)
        if max_length > most:
            raise UsageError(f"--max-length {max_length}: the checkpoint reads at most {most} tokens")
        model.max_seq_length = max_length


def normalizes(model: "SentenceTransformer") -> bool:
    """Whether the last module makes the length of every vector 1."""
    from sentence_transformers.sentence_transformer.modules import Normalize

    last, key = next(reversed(model._modules.values())), "sentence_embedding"
    return isinstance(last, Normalize) and getattr(last, "module_output_name", key) == key


def whole_dimension(model: "SentenceTransformer") -> int:
    """Of the vectors that the modules give, before a checkpoint's `truncate_dim` cuts them."""
    with model.truncate_embeddings(None):
        return int(model.get_embedding_dimension())


def sides(model: "SentenceTransformer", name: str) -> tuple["SentenceTransformer", "SentenceTransformer"]:
    """What queries and what documents go through: the model itself, or for one with a Router the modules of
    each route, flat; the same object where both take the same.

    Raises:
        ModelError: a Router has no route for queries or documents.
    """
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Router

    if not any(isinstance(module, Router) for module in model):
        return model, model
    routes = []
    for task in ("query", "document"):
        try:
            modality = model.preprocess(["text"], task=task).get("modality")
            routes.append(list(_flat(model, task, modality)))
        except ValueError as error:
            reason = " ".join(str(error).split())
            raise ModelError(
                f"{name} cannot encode a {task}: {reason} (expected a Router with routes for a query "
                "and for a document)"
            ) from error

    def side(modules: list[Any]) -> "SentenceTransformer":
        made = SentenceTransformer(modules=modules, device=str(model.device), truncate_dim=model.truncate_dim)
        made.train(model.training)
        return made

    queries, documents = routes
    of_documents = side(documents)
    same = list(map(id, queries)) == list(map(id, documents))
    return (of_documents if same else side(queries)), of_documents


def _flat(modules: Iterable[Any], task: str, modality: Any) -> Iterator[Any]:
    """The modules that a text of this task goes through."""
    from sentence_transformers.base.modules import Router

    for module in modules:
        if isinstance(module, Router):
            route = module._resolve_route(task=task, modality=modality)
            yield from _flat(module.sub_modules[route], task, modality)
        else:
            yield module


def capacity(model: "SentenceTransformer") -> int:
    """The most tokens that the model's positions allow; its own maximum where its config says nothing."""
    positions = getattr(model.config, "max_position_embeddings", None)
    if not positions:
        return int(model.max_seq_length)
    # RoBERTa's kind counts positions from pad_token_id + 1 on.
    embeddings = getattr(model.transformers_model, "embeddings", None)
    padding = getattr(embeddings, "padding_idx", None)
    if padding is None or "roberta" not in str(model.config.model_type):
        return int(positions)
    return int(positions) - int(padding) - 1


def fingerprint(model: "SentenceTransformer") -> str:
    """SHA-256 over what decides a vector: weights, tokenizer, pooling and normalisation.

    Path, device, prompts and maximum length are not part of it: documents and queries of one index may differ
    in them.
    """
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        # It takes no part in the vectors, and is drawn at random where a checkpoint does not hold it.
        if ".pooler." in name:
            continue
        array = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {array.dtype} {tuple(array.shape)}\n".encode())
        digest.update(memoryview(array.reshape(-1).view(torch.uint8).numpy()))
    digest.update(_tokenizer_identity(model.tokenizer))
    # Static embeddings have no config.
    digest.update(str(getattr(model.config, "model_type", None)).encode())
    for module in list(model)[1:]:
        config = module.get_config_dict() if hasattr(module, "get_config_dict") else {}
        digest.update(f"{type(module).__name__} {json.dumps(config, sort_keys=True)}\n".encode())
    return digest.hexdigest()


def _tokenizer_identity(tokenizer: Any) -> bytes:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return json.dumps(sorted(tokenizer.get_vocab().items())).encode()
    content = json.loads(backend.to_str())
    # These two are settings of the last call, not of the tokenizer.
    content.pop("truncation", None)
    content.pop("padding", None)
    return json.dumps(content, sort_keys=True).encode()
