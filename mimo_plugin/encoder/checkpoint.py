"""From a checkpoint's files to a `SentenceTransformer`: loading, the user's overrides, identity."""

import json
import logging
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mimo_plugin.core.environment import reachable, without_model_bars
from mimo_plugin.core.errors import EnvironmentProblem, ModelError, UsageError
from mimo_plugin.encoder.batching import Texts, encode
from mimo_plugin.encoder.export import reason
from mimo_plugin.encoder.side import TorchSide, capacity, no_limit, normalizes

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_log = logging.getLogger(__name__)
# Longest text in tokens where a checkpoint's files set no limit.
UNLIMITED = 512
# What a warning says of a length that nobody asked for.
CUT = "texts are cut to"
# What the longest text of the probe may cost, in parameters times tokens: half a second on a few cores.
_PROBE_WORK, _PROBE_LEAST = 2**33, 8
# Weights in formats that are not read.
_PICKLED = (".bin", ".pt", ".pth", ".ckpt")


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
    path: str, checkpoint: str, device: str, dtype: str = "float32", *, attention: str | None = None
) -> "SentenceTransformer":
    """Loads a directory or a hub id; `checkpoint` is its name in messages.

    Only safetensors weights are read and no code from the checkpoint is run. Where the tokenizer has no
    padding token, its end-of-sequence token stands in; a warning says so.

    Args:
        dtype: number format of the transformer's weights, which are never held in another one.

    Raises:
        ModelError: there is no such checkpoint, or it cannot be loaded.
    """
    import torch
    from sentence_transformers import SentenceTransformer

    check_files(path, checkpoint)
    try:
        with without_model_bars():
            model = SentenceTransformer(
                path,
                device=device,
                trust_remote_code=False,
                local_files_only=_only_local(path),
                model_kwargs={
                    "use_safetensors": True,
                    "dtype": getattr(torch, dtype),
                    **({} if attention is None else {"attn_implementation": attention}),
                },
            )
    except Exception as error:
        raise ModelError(_why_not(path, checkpoint, error)) from error
    tokenizer = getattr(model[0], "tokenizer", None)
    if tokenizer is not None and getattr(tokenizer, "pad_token", "") is None:
        # Which one does not matter, since padding is masked.
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)
        _log.warning(f"{checkpoint} has no padding token: {tokenizer.pad_token!r} is used for padding")
    return model


def check_files(path: str, checkpoint: str) -> None:
    """Raises a ModelError where a place on this machine holds no checkpoint that is read here."""
    directory = Path(path)
    if not directory.is_dir():
        if directory.is_absolute() or path.startswith(("./", "../")) or path.count("/") > 1:
            raise ModelError(f"{path}: no such directory; expected a checkpoint's directory or a hub id")
        return
    adapter = next(directory.glob("adapter_config.json"), None) or next(
        directory.glob("0_*/adapter_config.json"), None
    )
    if adapter is not None:
        raise ModelError(_adapter(adapter, checkpoint))
    if not (directory / "config.json").is_file() and not (directory / "modules.json").is_file():
        raise ModelError(
            f"{checkpoint} holds no checkpoint: neither config.json nor modules.json is in it; expected a "
            "sentence-transformers or Hugging Face directory"
        )
    if not any(directory.rglob("*.safetensors")):
        pickled = [path.name for path in directory.rglob("*") if path.suffix in _PICKLED]
        raise ModelError(
            f"{checkpoint} holds no *.safetensors file"
            + (f" but {', '.join(sorted(pickled)[:3])}" if pickled else "")
            + f", and other weight formats are not read: {_conversion(directory, checkpoint)}"
        )


def _conversion(root: Path | None, checkpoint: str) -> str:
    """How to make safetensors of a checkpoint's pickled weights."""
    whole = root is not None and (root / "modules.json").is_file()
    classes = ("SentenceTransformer",) if whole else ("AutoModel", "AutoTokenizer")
    calls = " and ".join(
        f"{name}.from_pretrained({checkpoint!r}).save_pretrained('converted')"
        if not whole
        else f"{name}({checkpoint!r}).save_pretrained('converted')"
        for name in classes
    )
    return f"where you trust its files, convert it once in Python with {calls}, and name that directory"


def _adapter(config: Path, checkpoint: str) -> str:
    try:
        said = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        said = {}
    base = said.get("base_model_name_or_path") or "its base model"
    return (
        f"{checkpoint} is a {said.get('peft_type') or 'LoRA'} adapter of {base} and no whole checkpoint: "
        "merge it into its base model once, with pip install peft and then in Python "
        f"PeftModel.from_pretrained(AutoModel.from_pretrained({base!r}), {checkpoint!r}).merge_and_unload()"
        ".save_pretrained('merged'), save the tokenizer there with AutoTokenizer.from_pretrained("
        f"{base!r}).save_pretrained('merged'), and name that directory"
    )


def _why_not(path: str, checkpoint: str, error: Exception) -> str:
    """What to do about a checkpoint that sentence-transformers cannot load."""
    said = f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"
    root = files_root(path, fetch=False)
    adapter = root / "adapter_config.json" if root else None
    if adapter is not None and adapter.is_file():
        return _adapter(adapter, checkpoint)
    if "trust_remote_code" in str(error):
        return (
            f"{checkpoint} needs program code that comes with it{_own_code(root)}, which is never run: "
            "expected an architecture that transformers and sentence-transformers have; look for a version "
            "of the model that was converted to one (its config.json has no auto_map), or take another model"
        )
    if isinstance(error, OSError) and "safetensors" in said:
        return (
            f"{checkpoint} has no *.safetensors file, and other weight formats are not read: "
            + _conversion(root, checkpoint)
        )
    return (
        f"{checkpoint} cannot be loaded: {said} (expected a directory, "
        "or the id of a hub checkpoint that is in the local cache or can be fetched)"
    )


def _own_code(root: Path | None) -> str:
    """The files of a checkpoint's own code, in brackets."""
    files = sorted(file.name for file in root.glob("*.py")) if root else []
    return f" ({', '.join(files[:5])})" if files else ""


def files_root(path: str, *, fetch: bool) -> Path | None:
    """Where a checkpoint's files lie; None where they are not on this machine.

    Args:
        fetch: whether the hub is asked for its newest version.
    """
    if Path(path).is_dir():
        return Path(path)
    from huggingface_hub import hf_hub_download

    for name in ("config.json", "adapter_config.json"):
        try:
            return Path(hf_hub_download(path, name, local_files_only=not fetch or _only_local(path))).parent
        except Exception:  # of the hub's client and its transport: loading the model says what is wrong
            continue
    return None


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
    checkpoint: str,
) -> None:
    """Changes what the user asked to change; None leaves what the checkpoint's own files say.

    A maximum length beyond the model's positions is cut to them, and where the files set no limit one is set;
    a warning says so.

    Args:
        checkpoint: its name in messages.

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
    if model.transformers_model is None:
        # Static embeddings read a text whole.
        return
    most, own = capacity(model), model.max_seq_length
    if max_length is not None:
        if most is not None and max_length > most:
            raise UsageError(f"--max-length {max_length}: the checkpoint reads at most {most} tokens")
        model.max_seq_length = max_length
    elif most is None:
        model.max_seq_length = UNLIMITED
        _log.warning(
            f"{checkpoint} sets no limit to a text's length: {CUT} {UNLIMITED} tokens; "
            "--max-length sets another"
        )
    elif own is None or own > most:
        model.max_seq_length = most
        allowed = "any number of tokens" if no_limit(own) else f"{own} tokens"
        _log.warning(f"{checkpoint} allows {allowed} and has positions for {most}: {CUT} {most} tokens")


def has_routes(model: "SentenceTransformer") -> bool:
    """Whether queries and documents may go through different modules."""
    from sentence_transformers.base.modules import Router

    return any(isinstance(module, Router) for module in model)


def sides(model: "SentenceTransformer", name: str) -> tuple["SentenceTransformer", "SentenceTransformer"]:
    """What queries and what documents go through: the model itself, or for one with a Router the modules of
    each route, flat; the same object where both take the same.

    Raises:
        ModelError: a Router has no route for queries or documents.
    """
    from sentence_transformers import SentenceTransformer

    if not has_routes(model):
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


def probe(side: TorchSide, checkpoint: str) -> None:
    """Encodes nothing, a word and a text over the limit, so that what is wrong shows before the work.

    Args:
        checkpoint: its name in messages.

    Raises:
        ModelError: one of them cannot be encoded, or has no finite vector.
    """
    import numpy as np

    longest = max(side.affordable(_PROBE_WORK), _PROBE_LEAST)
    model = side.model
    # Static embeddings have no limit and cost nothing.
    longest = _PROBE_LEAST if math.isinf(model.max_seq_length) else min(int(model.max_seq_length), longest)
    long = "word " * (longest + 1)
    for what, text in (("an empty text", ""), ("one word", "word"), (f"a text of {longest} tokens", long)):
        try:
            with side.cut_to(longest):
                vectors = encode(side, Texts([text], prompt="", batch_size=1))
        except Exception as error:
            raise ModelError(
                f"{checkpoint} cannot encode {what}: {reason(error)}: expected weights, tokenizer and "
                "modules that fit together; fetch or save it again"
                + ("" if text != long else f", or allow fewer tokens with --max-length (now {longest})")
            ) from error
        if not np.isfinite(vectors).all():
            if not text:
                _log.warning(
                    f"{checkpoint} gives NaN or infinity for {what}: documents and queries need some text"
                )
                continue
            raise ModelError(
                f"{checkpoint} gives NaN or infinity for {what}: the checkpoint is broken, or overflows in "
                "this --dtype (try float32)"
            )


def cast_others(model: "SentenceTransformer", dtype: str) -> None:
    """Gives the modules beside the transformer the number format that it was loaded in."""
    import torch
    from transformers import PreTrainedModel

    loaded = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, PreTrainedModel)
        for parameter in module.parameters()
    }
    for parameter in model.parameters():
        if id(parameter) not in loaded:
            parameter.data = parameter.data.to(getattr(torch, dtype))
