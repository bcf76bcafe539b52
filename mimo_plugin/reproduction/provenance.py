"""What made a table: versions, hardware, code."""

import os
import platform
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from mimo_plugin.training.environment import git_commit, installed_versions, processor

_PACKAGES = (
    "mimo-plugin",
    "pyserini",
    "torch",
    "transformers",
    "sentence-transformers",
    "faiss-cpu",
    "ir_datasets",
    "ranx",
    "scipy",
    "statsmodels",
    "numpy",
)


def provenance(command: str, device: str | None, fingerprints: dict[str, str]) -> dict[str, Any]:
    """Args:
    command: that made it.
    device: type of the encoders' device; None where none ran.
    fingerprints: of documents, encoders and so on, by name.
    """
    return {
        "command": command,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"python": platform.python_version()} | installed_versions(_PACKAGES),
        "hardware": {
            "machine": platform.platform(),
            "processor": processor(),
            "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
            "memory_bytes": _memory_bytes(),
            "device": _device(device),
        },
        "git_commit": git_commit(Path(__file__).parent),
        "fingerprints": fingerprints,
    }


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None


def _device(device: str | None) -> str | None:
    if device != "cuda":
        return device
    import torch

    return str(torch.cuda.get_device_name())
