"""From a checkpoint's files to a `SentenceTransformer`: checks, loading, the user's overrides, a probe."""

import json
import logging
import math
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mimo_plugin.core.environment import hub_problem, reachable, without_model_bars
from mimo_plugin.core.errors import EnvironmentProblem, ModelError, UsageError
from mimo_plugin.encoder.batching import Texts, encode
from mimo_plugin.encoder.cached import cached_checkpoints
from mimo_plugin.encoder.export import reason
from mimo_plugin.encoder.packaged import PACKAGES
from mimo_plugin.encoder.side import TorchSide, capacity, no_limit, normalizes

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_log = logging.getLogger(__name__)
# Longest text in tokens, if a checkpoint's files set no limit.
UNLIMITED = 512
# Names in the message about a checkpoint that is not there.
_SHOWN = 3
# In warnings about a length that the user did not set.
CUT = "texts are cut to"
# Cost of the probe's longest text, in parameters times tokens: half a second on a few cores.
_PROBE_WORK, _PROBE_LEAST = 2**33, 8
# File formats of weights that are not read.
_PICKLED = (".bin", ".pt", ".pth", ".ckpt")


def check_device(device: str | None) -> str:
    """Checks the name of a torch device; None becomes the fastest one.

    Raises:
        EnvironmentProblem: torch does not see the device.
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
            f"device {device} was requested and torch sees {torch.cuda.device_count()} CUDA devices: "
            "use --device cpu, or install a torch build for this machine's GPU"
        )
    if parsed.type == "mps" and not torch.backends.mps.is_available():
        raise EnvironmentProblem("device mps was requested and torch does not see it: use --device cpu")
    return device


def load_model(
    path: str, checkpoint: str, device: str, dtype: str = "float32", *, attention: str | None = None
) -> "SentenceTransformer":
    """Loads a directory or a hub id.

    Only safetensors weights are read and no code from the checkpoint is run. A tokenizer without a padding
    token gets its end-of-sequence token for padding, with a warning.

    Args:
        checkpoint: its name in messages.
        dtype: number format of the transformer's weights; they are loaded in it directly.

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
        # Any token will do, since padding is masked.
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)
        _log.warning(f"{checkpoint} has no padding token: {tokenizer.pad_token!r} is used for padding")
    return model


def check_files(path: str, checkpoint: str) -> None:
    """Raises a ModelError if a local path is no checkpoint, or one that is not supported.

    Hub ids pass, unless they are not in the local cache and cannot be fetched.
    """
    directory = Path(path)
    if not directory.is_dir():
        if directory.is_absolute() or path.startswith(("./", "../")) or path.count("/") > 1:
            raise ModelError(f"{path}: no such directory; expected a checkpoint's directory or a hub id")
        if files_root(path, fetch=False) is None and (problem := hub_problem()):
            raise ModelError(
                f"{checkpoint} is not on this machine, and {problem}: expected a directory or one of "
                f"{', '.join(_near_first(checkpoint))}"
            )
        return
    adapter = next(directory.glob("adapter_config.json"), None) or next(
        directory.glob("0_*/adapter_config.json"), None
    )
    if adapter is not None:
        raise ModelError(_adapter(adapter, checkpoint))
    if not (directory / "config.json").is_file() and not (directory / "modules.json").is_file():
        raise ModelError(
            f"{checkpoint} holds no checkpoint: neither config.json nor modules.json is in it; expected a "
            "sentence-transformers or Hugging Face directory, or a finished training run"
        )
    if not any(directory.rglob("*.safetensors")):
        pickled = [path.name for path in directory.rglob("*") if path.suffix in _PICKLED]
        raise ModelError(
            f"{checkpoint} holds no *.safetensors file"
            + (f" but {', '.join(sorted(pickled)[:3])}" if pickled else "")
            + f", and other weight formats are not read: {_conversion(directory, checkpoint)}"
        )


def _near_first(name: str) -> list[str]:
    """Checkpoints on this machine: those with a similar name, else some of the cache; then packaged ones."""
    cached = cached_checkpoints()
    last = {one.rpartition("/")[2].casefold(): one for one in cached}
    similar = get_close_matches(name.rpartition("/")[2].casefold(), last, n=_SHOWN)
    return [*([last[one] for one in similar] or cached[:_SHOWN]), *PACKAGES]


def _conversion(root: Path | None, checkpoint: str) -> str:
    """How to make safetensors of a checkpoint's pickled weights."""
    if root is not None and (root / "modules.json").is_file():
        calls = f"SentenceTransformer({checkpoint!r}).save_pretrained('converted')"
    else:
        calls = " and ".join(
            f"{name}.from_pretrained({checkpoint!r}).save_pretrained('converted')"
            for name in ("AutoModel", "AutoTokenizer")
        )
    return f"if you trust its files, convert it once in Python with {calls}, and name that directory"


def _adapter(config: Path, checkpoint: str) -> str:
    """How to make a whole checkpoint of an adapter."""
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
    """Why sentence-transformers cannot load a checkpoint, and what to do."""
    said = f"{type(error).__name__}: {' '.join(str(error).split())[:500]}"
    root = files_root(path, fetch=False)
    adapter = root / "adapter_config.json" if root else None
    if adapter is not None and adapter.is_file():
        return _adapter(adapter, checkpoint)
    if "trust_remote_code" in str(error):
        files = sorted(file.name for file in root.glob("*.py")) if root else []
        code = f" ({', '.join(files[:5])})" if files else ""
        return (
            f"{checkpoint} needs program code that comes with it{code}, which is never run: expected an "
            "architecture that transformers and sentence-transformers have; look for a version of the model "
            "that was converted to one (its config.json has no auto_map), or take another model"
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


def files_root(path: str, *, fetch: bool) -> Path | None:
    """The directory of a checkpoint's files, or None if they are not on this machine.

    Args:
        fetch: asks the hub for the newest version.
    """
    if Path(path).is_dir():
        return Path(path)
    from huggingface_hub import hf_hub_download

    for name in ("config.json", "adapter_config.json"):
        try:
            return Path(hf_hub_download(path, name, local_files_only=not fetch or _only_local(path))).parent
        except Exception:  # of the hub's client and its transport: loading the model reports it
            continue
    return None


def _only_local(path: str) -> bool:
    """Whether no hub is asked: for a directory, or if the hub is switched off or does not answer."""
    from huggingface_hub import constants

    return Path(path).is_dir() or constants.HF_HUB_OFFLINE or not reachable([constants.ENDPOINT])


def has_modules_file(path: str) -> bool:
    """Whether a checkpoint has sentence-transformers layout: its files say pooling and normalisation."""
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
    """Applies the user's settings; None leaves a setting to the checkpoint's files.

    If the files allow more tokens than the model has positions, or set no limit, the length is limited with a
    warning. Static embeddings have no limit and get none.

    Args:
        own_modules: see `has_modules_file`; without, vectors are normalised by default.
        checkpoint: its name in messages.

    Raises:
        UsageError: a setting does not fit the checkpoint.
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
    """Whether the model has a Router, so that queries and documents may go through different modules."""
    from sentence_transformers.base.modules import Router

    return any(isinstance(module, Router) for module in model)


def sides(model: "SentenceTransformer", name: str) -> tuple["SentenceTransformer", "SentenceTransformer"]:
    """The models of queries and of documents: the model itself, or with a Router the modules of each route.

    Both are the same object if both routes have the same modules.

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
    """The modules of a task's route, without Routers."""
    from sentence_transformers.base.modules import Router

    for module in modules:
        if isinstance(module, Router):
            route = module._resolve_route(task=task, modality=modality)
            yield from _flat(module.sub_modules[route], task, modality)
        else:
            yield module


class NotFinite(ModelError):
    """A vector holds NaN or infinity; `position` is the text's index in the call."""

    def __init__(self, position: int, name: str, subject: str | None = None) -> None:
        self.position = position
        self.name = name
        subject = subject or f"text {position} of the call"
        super().__init__(
            f"{name} gives NaN or infinity for {subject}: the checkpoint is broken, or overflows in this "
            "--dtype (try float32)"
        )


def probe(side: TorchSide, checkpoint: str) -> None:
    """Encodes an empty text, a word and a text over the limit, so that a broken checkpoint shows early.

    Args:
        checkpoint: its name in messages.

    Raises:
        ModelError: a text cannot be encoded.
        NotFinite: the vector of a text that is not empty holds NaN or infinity.
    """
    import numpy as np

    longest = max(side.affordable(_PROBE_WORK), _PROBE_LEAST)
    model = side.model
    # Static embeddings have no limit, and cost nearly nothing.
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
            raise NotFinite(0, checkpoint, what)


def cast_others(model: "SentenceTransformer", dtype: str) -> None:
    """Casts the modules other than the transformer, which has been loaded in `dtype`."""
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
