"""The parts of encode.py that need a process of their own; each prints one JSON object."""

import json
import resource
import sys
import time
from pathlib import Path
from typing import Any


def facts(place: Path, path: str, device: str, _: int) -> dict[str, Any]:
    """Tokens, padding and floating-point operations of the texts; writes the expected vectors, too."""
    import numpy as np
    import torch

    model, texts = _load(place, path, device)
    mask = model.preprocess(texts, prompt="")["attention_mask"]
    lengths = mask.sum(dim=1).numpy()
    characters = np.argsort([-len(text) for text in texts], kind="stable")
    np.save(place / "expected.npy", model.encode(texts, batch_size=32, show_progress_bar=False))
    encoder = model.transformers_model.encoder
    products = sum(part.weight.numel() for part in encoder.modules() if isinstance(part, torch.nn.Linear))
    config = model.config
    attention = 4 * config.hidden_size * config.num_hidden_layers
    return {
        "documents": len(texts),
        "tokens": int(lengths.sum()),
        "flops": float((2 * products * lengths + attention * lengths**2).sum()),
        "hidden": config.hidden_size,
        "dimension": model.get_embedding_dimension(),
        "padding": {
            **{name: _padding(lengths, 64) for name in ("pyserini to JSONL", "pyserini to FAISS")},
            **{str(size): _padding(lengths[characters], size) for size in (8, 16, 32, 64, 128)},
            "mimo": _own_padding(model, texts, lengths),
        },
    }


def _padding(lengths: Any, batch_size: int) -> float:
    batches = [lengths[start : start + batch_size] for start in range(0, len(lengths), batch_size)]
    return 1 - float(lengths.sum()) / sum(int(batch.max()) * len(batch) for batch in batches)


def _own_padding(model: Any, texts: list[str], lengths: Any) -> float:
    from mimo_plugin.encoder.batching import TorchRunner, batches, pieces

    total = 0
    for piece in pieces([len(text) for text in texts]):
        features = model.preprocess([texts[position] for position in piece], prompt="")
        for _, part in batches(features, texts=64, tokens=TorchRunner(model).tokens):
            total += part["attention_mask"].size
    return 1 - float(lengths.sum()) / total


def library(place: Path, path: str, device: str, batch_size: int) -> dict[str, Any]:
    """sentence-transformers' own `encode`; loading and the first few texts do not count."""
    model, texts = _load(place, path, device)
    model.encode(texts[:8], batch_size=batch_size, show_progress_bar=False)
    began = time.perf_counter()
    model.encode(texts, batch_size=batch_size, show_progress_bar=False)
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {"seconds": seconds, "start": 0.0, "few": 0, "peak_bytes": peak, "batch_size": batch_size}


def matrix(place: Path, path: str, device: str, hidden: int) -> dict[str, Any]:
    """Floating-point operations per second of a large float32 product of the model's own width."""
    import torch

    left = torch.randn(4096, hidden, device=device)
    right = torch.randn(hidden, 4 * hidden, device=device)

    def run(seconds: float) -> float:
        count, began = 0, time.perf_counter()
        while time.perf_counter() - began < seconds:
            left @ right
            count += 1
            if device.startswith("cuda"):
                torch.cuda.synchronize()
        return count / (time.perf_counter() - began)

    run(0.5)
    return {"flops": run(3.0) * 2 * 4096 * hidden * 4 * hidden}


def _load(place: Path, path: str, device: str) -> tuple[Any, list[str]]:
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(path, device=device)
    model.max_seq_length = int((place / "max-length").read_text())
    with (place / "all" / "corpus.jsonl").open(encoding="utf-8") as lines:
        return model, [json.loads(line)["text"] for line in lines]


if __name__ == "__main__":
    kind, directory, checkpoint, where, number = sys.argv[1:]
    found = {"facts": facts, "library": library, "matrix": matrix}[kind]
    print(json.dumps(found(Path(directory), checkpoint, where, int(number))))
