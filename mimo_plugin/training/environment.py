"""What a run ran on, for its record."""

import platform
import subprocess
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_PACKAGES = (
    "mimo-plugin",
    "torch",
    "transformers",
    "sentence-transformers",
    "accelerate",
    "tokenizers",
    "numpy",
)


def environment(device: str, processes: int) -> dict[str, Any]:
    """Versions, device and, where the package runs from a git checkout, its commit."""
    import torch

    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "versions": installed_versions(_PACKAGES),
        "device": {"cuda": torch.cuda.get_device_name, "cpu": processor}.get(device, lambda: device)(),
        "threads": torch.get_num_threads(),
        "processes": processes,
        "git_commit": git_commit(Path(__file__).parent),
    }


def processor() -> str:
    """The processor's name, its architecture where it has none."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def installed_versions(packages: Iterable[str]) -> dict[str, str]:
    """Package -> its version, or that it is not installed."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def git_commit(directory: Path) -> str | None:
    """The commit checked out in a directory, with `-dirty` where files differ from it; None elsewhere."""
    try:
        commit = _git(directory, "rev-parse", "HEAD")
        return f"{commit}-dirty" if _git(directory, "status", "--porcelain", "--", ".") else commit
    except (OSError, subprocess.CalledProcessError):
        return None


def _git(directory: Path, *arguments: str) -> str:
    done = subprocess.run(
        ["git", "-C", str(directory), *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()
