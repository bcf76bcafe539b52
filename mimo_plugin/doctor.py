"""What is installed and usable here, and how to fix what is not."""

import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from mimo_plugin.core.environment import NOT_INSTALLED, installed_versions, missing
from mimo_plugin.core.errors import MimoError
from mimo_plugin.encoder import packaged

NEEDED = (
    "pyserini",
    "torch",
    "transformers",
    "sentence-transformers",
    "faiss-cpu",
    "ir_datasets",
    "ranx",
    "scipy",
    "statsmodels",
)


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        subject: a package, device, directory, ...
        state: "ok", "note" (the package works without it) or "problem".
        found: version, path or reason.
        fix: the command or step that fixes it; empty where nothing is wrong.
    """

    subject: str
    state: str
    found: str
    fix: str = ""


def examine() -> list[Finding]:
    """Checks everything that the package needs. Only Java binaries are started, for their version."""
    return [_python(), *_packages(), *_java(), _device(), *_backends(), _training(), *_packaged(), *_caches()]


def text(findings: list[Finding]) -> str:
    """The findings as an aligned list, each fix below its finding."""
    width = max(len(finding.subject) for finding in findings)
    lines = []
    for finding in findings:
        lines.append(f"{finding.state:<8}{finding.subject:<{width + 2}}{finding.found}")
        if finding.fix:
            lines.append(f"{'':<8}{'':<{width + 2}}-> {finding.fix}")
    return "\n".join(lines)


def _python() -> Finding:
    return Finding("Python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}")


_LIMITED = {
    "2.0.0": "cannot be imported by itself without an OpenAI key in the environment, and is not tested here",
    "2.4.0": "fetches index metadata from the internet at every import, so it does not work offline",
}


def _packages() -> Iterator[Finding]:
    for name, found in installed_versions(("mimo-plugin", *NEEDED)).items():
        if found == NOT_INSTALLED:
            yield Finding(name, "problem", found, f"pip install {name}")
        elif name == "pyserini" and found in _LIMITED:
            yield Finding(name, "note", f"{found} {_LIMITED[found]}", "pip install 'pyserini==2.3.0'")
        else:
            yield Finding(name, "ok", found)


def _java() -> Iterator[Finding]:
    from mimo_plugin.pyserini.java import candidates, find_java

    try:
        chosen = find_java()
    except MimoError as error:
        yield Finding("Java", "problem", "none that Pyserini can use", str(error).splitlines()[-1])
    else:
        vector = "with" if chosen.has_vector else "without"
        yield Finding(
            "Java", "ok", f"{chosen.version} from {chosen.source}, {chosen.home} ({vector} the vector module)"
        )
    for candidate in candidates():
        if candidate.problem:
            yield Finding(
                "Java", "note", f"passed over: {candidate.home} ({candidate.source}): {candidate.problem}"
            )


def _device() -> Finding:
    if find_spec("torch") is None:
        return Finding("device", "problem", "torch is not installed", "pip install torch")
    import torch

    if torch.cuda.is_available():
        names = ", ".join(torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count()))
        return Finding("device", "ok", f"cuda: {names}")
    if torch.backends.mps.is_available():
        return Finding("device", "ok", "mps")
    return Finding("device", "ok", f"cpu, {torch.get_num_threads()} threads")


def _backends() -> Iterator[Finding]:
    from mimo_plugin.encoder.options import ONNX, OPENVINO, installed

    for name, package in ((OPENVINO, "openvino"), (ONNX, "onnxruntime")):
        if installed(name):
            yield Finding(f"backend {name}", "ok", version(package))
        else:
            fix = "pip install 'mimo-plugin[fast]'"
            yield Finding(f"backend {name}", "note", "not installed: encoders run on torch", fix)


def _training() -> Finding:
    from mimo_plugin.training.start import PACKAGES

    if names := missing(PACKAGES):
        found = f"{', '.join(names)} not installed: `mimo train` and `mimo experiment` cannot run"
        return Finding("training", "note", found, "pip install 'mimo-plugin[train]'")
    return Finding("training", "ok", ", ".join(f"{name} {version(name)}" for name in PACKAGES))


def _packaged() -> Iterator[Finding]:
    for name, package in packaged.PACKAGES.items():
        try:
            found = f"verified, {packaged.verified(name)} ({package.what})"
        except MimoError as error:
            found, _, fix = str(error).partition(": ")
            yield Finding(name, "note", found, fix)
            continue
        if package.convert is not None:
            place = packaged.converted_directory(name)
            found += f", {'converted' if place.is_dir() else 'on first use to be converted'} to {place}"
        yield Finding(name, "ok", found)


def _caches() -> Iterator[Finding]:
    from mimo_plugin.encoder.export import graphs_directory

    home = Path.home()
    for name, variable, default in (
        ("ir_datasets data", "IR_DATASETS_HOME", home / ".ir_datasets"),
        ("checkpoints", "HF_HOME", home / ".cache" / "huggingface"),
    ):
        path = Path(os.environ.get(variable) or default)
        there = "" if path.is_dir() else ", not there yet"
        yield Finding(name, "ok", f"{path} ({variable}{there})")
    graphs = graphs_directory()
    there = "" if graphs.is_dir() else " (not there yet)"
    yield Finding("exported encoders", "ok", f"{graphs}{there}")
    offline = os.environ.get("HF_HUB_OFFLINE", "")
    if offline.lower() in ("1", "true", "yes", "on"):
        yield Finding("model hub", "note", f"HF_HUB_OFFLINE={offline}: only cached checkpoints are loaded")
