"""Pyserini's own commands with the encoder class `mimo`."""

import argparse
import runpy
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mimo_plugin.core.errors import EnvironmentProblem, UsageError

if TYPE_CHECKING:
    from mimo_plugin.encoder.encoder import Encoder

# Marks our encoders in the configuration of Pyserini's servers.
SCHEME = "mimo:"


def check_server() -> None:
    """Raises an EnvironmentProblem where Pyserini's server has no local FAISS indexes."""
    found = version("pyserini")
    if [int(part) for part in found.split(".")[:2]] < [2, 1]:
        raise EnvironmentProblem(
            f"the server of Pyserini {found} has its own prebuilt indexes only, 2.1 and newer serve a local "
            "FAISS index: on Python 3.12 or newer, pip install 'pyserini==2.3.0'"
        )


def run_module(
    module: str, arguments: Sequence[str], encoders: Mapping[str, "Encoder"] | None = None
) -> None:
    """Runs `python -m pyserini.MODULE ARGUMENTS...` in this process, and lets it use MIMO students.

    With `--encoder-class mimo`, the defaults are the checkpoint's maximum length and dimension, not 256 and
    768, and `pyserini.encode` respects `--prefix` and `--fp16`. A server's configuration may name an encoder
    `mimo:CHECKPOINT`.

    Args:
        encoders: name in a server's configuration -> its encoder.

    Raises:
        EnvironmentProblem: a search succeeded without writing its output.
        ModelError: the checkpoint cannot be loaded.
        UsageError: Pyserini has no such module.
        SystemExit: the module's own exit.
    """
    from mimo_plugin.pyserini.encoders import ENCODER_CLASS, register

    register()
    name = module if module == "pyserini" or module.startswith("pyserini.") else f"pyserini.{module}"
    try:
        known = find_spec(name) is not None
    except ModuleNotFoundError:
        known = False
    if not known:
        raise UsageError(
            f"{name} is not a module of Pyserini: encode, search.faiss, search.lucene, ... was expected"
        )
    ours = _value(arguments, "--encoder-class") == ENCODER_CLASS
    defaults = _defaults(arguments) if ours else {}
    before = sys.argv
    sys.argv = [name, *arguments]
    try:
        with ExitStack() as stack:
            stack.enter_context(_parsers_changed("--encoder-class", ENCODER_CLASS, defaults))
            if ours and name == "pyserini.encode":
                stack.enter_context(_documents_encoded(arguments))
            if name.startswith("pyserini.server"):
                stack.enter_context(_encoders_by_scheme(encoders or {}))
            if name.startswith("pyserini.search"):
                stack.enter_context(_output_required(arguments))
            runpy.run_module(name, run_name="__main__", alter_sys=True)
    finally:
        sys.argv = before


def _value(arguments: Sequence[str], option: str) -> str | None:
    """The last value of an option, `--option VALUE` or `--option=VALUE`."""
    found = None
    for position, argument in enumerate(arguments):
        if argument == option:
            found = arguments[position + 1] if position + 1 < len(arguments) else None
        elif argument.startswith(f"{option}="):
            found = argument.partition("=")[2]
    return found


def _defaults(arguments: Sequence[str]) -> dict[str, Any]:
    """Defaults of Pyserini's options for one of our encoders."""
    defaults: dict[str, Any] = {"--max-length": None}
    checkpoint = _value(arguments, "--encoder")
    if checkpoint and "--to-faiss" in arguments and _value(arguments, "--dimension") is None:
        from mimo_plugin.encoder.encoder import Encoder
        from mimo_plugin.encoder.options import EncoderOptions

        defaults["--dimension"] = Encoder(
            checkpoint, EncoderOptions(device="cpu", dtype="float32", known_prompts=False)
        ).dimension
    return defaults


@contextmanager
def _parsers_changed(option: str, choice: str, defaults: Mapping[str, Any]) -> Iterator[None]:
    """Adds a choice, and changes defaults, in the parsers that Pyserini builds meanwhile."""
    original = argparse._ActionsContainer.add_argument

    def add_argument(self: Any, *names: Any, **settings: Any) -> argparse.Action:
        if option in names and settings.get("choices") is not None:
            settings["choices"] = [choice, *settings["choices"]]
        for name in names:
            if name in defaults:
                settings["default"] = defaults[name]
        return original(self, *names, **settings)

    argparse._ActionsContainer.add_argument = add_argument  # type: ignore[method-assign]
    try:
        yield
    finally:
        argparse._ActionsContainer.add_argument = original  # type: ignore[method-assign]


@contextmanager
def _documents_encoded(arguments: Sequence[str]) -> Iterator[None]:
    """Passes `--prefix` and `--fp16` on: `pyserini.encode` gives unknown classes a name and a device only."""
    from pyserini.encode import document_encoder_class_map

    from mimo_plugin.pyserini.encoders import ENCODER_CLASS, MimoDocumentEncoder

    document_encoder_class_map[ENCODER_CLASS] = partial(
        MimoDocumentEncoder, prefix=_value(arguments, "--prefix"), fp16="--fp16" in arguments
    )
    try:
        yield
    finally:
        document_encoder_class_map[ENCODER_CLASS] = MimoDocumentEncoder


@contextmanager
def _encoders_by_scheme(encoders: Mapping[str, "Encoder"]) -> Iterator[None]:
    """Lets `FaissSearcher` read our scheme and names; it encodes with CLS pooling for an unknown name."""
    from pyserini.search.faiss import FaissSearcher

    from mimo_plugin.pyserini.encoders import MimoQueryEncoder

    original = FaissSearcher._init_encoder_from_str

    def from_string(encoder: str) -> Any:
        if encoder in encoders:
            return MimoQueryEncoder(encoders[encoder])
        if encoder.startswith(SCHEME):
            return MimoQueryEncoder(encoder.removeprefix(SCHEME))
        return original(encoder)

    FaissSearcher._init_encoder_from_str = staticmethod(from_string)
    try:
        yield
    finally:
        FaissSearcher._init_encoder_from_str = staticmethod(original)


@contextmanager
def _output_required(arguments: Sequence[str]) -> Iterator[None]:
    """Raises where no output was written: Pyserini's searches exit with status 0 for a missing index."""
    output = _value(arguments, "--output")
    if output is None or {"-h", "--help"} & set(arguments):
        yield
        return
    before = _written(Path(output))
    try:
        yield
    except SystemExit as exit_:
        if exit_.code:
            raise
    if _written(Path(output)) == before:
        raise EnvironmentProblem(
            f"Pyserini ended without writing {output}, see its messages above: --index must name an existing "
            "directory, or an index that Pyserini can fetch"
        )


def _written(path: Path) -> int | None:
    """The time of a file's last write, in nanoseconds; None for a missing file."""
    return path.stat().st_mtime_ns if path.exists() else None
