"""The identity of a model: a hash over all that decides its vectors."""

import hashlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mimo_plugin.encoder.checkpoint import files_root, load_model, sides

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer

# Values of a weight that are read at a time.
_AT_ONCE = 1 << 22


def fingerprint(model: "SentenceTransformer", path: str | None = None) -> str:
    """SHA-256 over what decides a vector: weights, tokenizer, pooling and normalisation.

    Path, device, prompts and maximum length are not part of it: documents and queries of one index may differ
    in them. The number format is not part of it either: weights count as float32. A weight that was rounded
    when it was loaded counts as in the checkpoint's files.

    Args:
        path: of the checkpoint; None where the weights were loaded as float32.
    """
    import torch

    digest = hashlib.sha256()
    weights = {name: tensor for name, tensor in model.state_dict().items() if not _at_random(name)}
    rounded = [name for name, tensor in weights.items() if tensor.dtype in (torch.bfloat16, torch.float16)]
    exact = _Exact(weights, path) if rounded and path is not None and _rounds(path, weights) else None
    for name, tensor in sorted(weights.items()):
        kind = torch.float32 if name in rounded else tensor.dtype
        digest.update(f"{name} {kind} {tuple(tensor.shape)}\n".encode())
        for part in (
            _parts(tensor, tensor.shape) if exact is None or name not in rounded else exact.parts(name)
        ):
            array = part.detach().cpu().to(kind).contiguous()
            digest.update(memoryview(array.reshape(-1).view(torch.uint8).numpy()))
    digest.update(_tokenizer_identity(model.tokenizer))
    # Static embeddings have no config.
    digest.update(str(getattr(model.config, "model_type", None)).encode())
    for module in list(model)[1:]:
        config = module.get_config_dict() if hasattr(module, "get_config_dict") else {}
        digest.update(f"{type(module).__name__} {json.dumps(config, sort_keys=True)}\n".encode())
    return digest.hexdigest()


def _rounds(path: str, weights: "Mapping[str, torch.Tensor]") -> bool:
    """Whether the files hold weights in a format that none of the model's has."""
    import torch
    from safetensors import safe_open

    names = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16"}
    formats = {names.get(tensor.dtype) for tensor in weights.values()}
    stored = set()
    for file in _weight_files(path):
        with safe_open(file, "pt") as tensors:
            keys = tensors.keys()
            stored |= {tensors.get_slice(key).get_dtype() for key in keys}
    return not stored or not (stored & {"F64", *names.values()}) <= (formats - {"F32"})


def _weight_files(path: str) -> list[Path]:
    root = files_root(path, fetch=False)
    return sorted(root.rglob("*.safetensors")) if root else []


def _at_random(name: str) -> bool:
    """Poolers do not affect the vectors, and are initialised at random where the checkpoint has none."""
    return ".pooler." in name


def _parts(tensor: Any, shape: Sequence[int]) -> "Iterator[torch.Tensor]":
    """Some rows at a time of a tensor in memory or in a file, so that no whole copy is made."""
    if not shape:
        yield tensor[...]
        return
    rows = max(1, _AT_ONCE * shape[0] // max(math.prod(shape), 1))
    for start in range(0, shape[0], rows):
        yield tensor[start : min(start + rows, shape[0])]


class _Exact:
    """The values of rounded weights as in the checkpoint's files, read some rows at a time.

    Names in the files and in the model have different prefixes. A stored weight is only accepted if rounding
    it gives the model's values. If none is found, the checkpoint is loaded once as float32.
    """

    def __init__(self, weights: "Mapping[str, torch.Tensor]", path: str) -> None:
        self._weights = weights
        self._path = path
        self._whole: list[Mapping[str, torch.Tensor]] | None = None
        self._files = _weight_files(path)

    def parts(self, name: str) -> "Iterator[torch.Tensor]":
        """The exact values of one weight, some rows at a time."""
        import torch
        from safetensors import safe_open

        loaded = self._weights[name]
        if self._whole is None:
            for file in self._files:
                with safe_open(file, "pt") as tensors:
                    for key in _same_ends(name, tensors.keys()):
                        stored, shape = tensors.get_slice(key), loaded.shape
                        if stored.get_shape() == list(shape) and all(
                            torch.equal(part.to(loaded.dtype), own.cpu())
                            for part, own in zip(_parts(stored, shape), _parts(loaded, shape), strict=True)
                        ):
                            yield from _parts(stored, shape)
                            return
            whole = load_model(self._path, self._path, "cpu")
            self._whole = [side.state_dict() for side in sides(whole, self._path)]
        found = (weights[name] for weights in self._whole if name in weights)
        same = (one for one in found if torch.equal(one.to(loaded.dtype), loaded.cpu()))
        # A weight that the files lack is initialised at random: the model's own values count.
        yield from _parts(next(same, loaded), loaded.shape)


def _same_ends(name: str, keys: "Iterable[str]") -> list[str]:
    """Keys of a file that may be the model's weight `name`, longest first.

    Either the key is a suffix of the name, or the name without sentence-transformers' prefix is a suffix of
    the key.
    """
    parts = name.split(".")
    ends = {".".join(parts[count:]) for count in range(len(parts))}
    own = ".".join(parts[2:])
    return sorted(
        (key for key in keys if key in ends or f".{key}".endswith(f".{own}")), key=len, reverse=True
    )


def _tokenizer_identity(tokenizer: Any) -> bytes:
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return json.dumps(sorted(tokenizer.get_vocab().items())).encode()
    content = json.loads(backend.to_str())
    # These are settings of the last call, not of the tokenizer.
    content.pop("truncation", None)
    content.pop("padding", None)
    return json.dumps(content, sort_keys=True).encode()
