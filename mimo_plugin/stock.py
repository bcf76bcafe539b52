"""Stock Pyserini commands with the encoder class `mimo`."""

import argparse
import runpy
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

from mimo_plugin.errors import UsageError


def run_module(module: str, arguments: Sequence[str]) -> None:
    """Runs `python -m pyserini.MODULE ARGUMENTS...` in this process, `--encoder-class mimo` allowed.

    Raises:
        UsageError: Pyserini has no such module.
        SystemExit: what the module itself exits with.
    """
    from mimo_plugin.encoders import ENCODER_CLASS, register

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
    before = sys.argv
    sys.argv = [name, *arguments]
    try:
        with _choice_added("--encoder-class", ENCODER_CLASS):
            runpy.run_module(name, run_name="__main__", alter_sys=True)
    finally:
        sys.argv = before


@contextmanager
def _choice_added(option: str, choice: str) -> Iterator[None]:
    """Pyserini spells out the choices of `--encoder-class` where it makes its parser: one more is let in."""
    original = argparse._ActionsContainer.add_argument

    def add_argument(self: Any, *names: Any, **settings: Any) -> argparse.Action:
        if option in names and settings.get("choices") is not None:
            settings["choices"] = [choice, *settings["choices"]]
        return original(self, *names, **settings)

    argparse._ActionsContainer.add_argument = add_argument  # type: ignore[method-assign]
    try:
        yield
    finally:
        argparse._ActionsContainer.add_argument = original  # type: ignore[method-assign]
