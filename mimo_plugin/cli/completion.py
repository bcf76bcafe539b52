"""What shell completion offers for a metavar. Nothing heavy is imported: the shell waits for it."""

import json
import re
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

Completer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def completer(metavar: str | None) -> Completer | None:
    """A function that completes the values of a parameter with this metavar; None leaves it to the type."""
    named = re.search(r"(?<![:\w])(COLLECTION|CHECKPOINT|CONFIG)", metavar or "")
    if named is None:
        return None
    offer, prefix = _OFFERS[named[1]], "path:" if named[1] == "COLLECTION" else ""

    def complete(_: click.Context, __: click.Parameter, incomplete: str) -> list[CompletionItem]:
        # NAME=CHECKPOINT and LANG=COLLECTION: the name stays.
        name, equals, value = incomplete.rpartition("=")
        return [
            CompletionItem(f"{name}{equals}{found}")
            for found in (*offer(), *_paths(value, prefix))
            if found.startswith(value)
        ]

    return complete


def _collections() -> Iterable[str]:
    """The packaged sample, and the ids of ir_datasets from its own list, without importing it."""
    spec = find_spec("ir_datasets")
    known: dict[str, Any] = {}
    if spec is not None and spec.origin is not None:
        known = json.loads((Path(spec.origin).parent / "etc" / "metadata.json").read_text("utf-8"))
    return ("mimo-sample", "path:", "hub:", *known)


def _checkpoints() -> Iterable[str]:
    from mimo_plugin.encoder.cached import checkpoints_at_hand

    return checkpoints_at_hand()


def _configs() -> Iterable[str]:
    from mimo_plugin.benchmark.settings import configs_directory

    return sorted(path.stem for path in configs_directory().glob("*.yaml"))


_OFFERS = {"COLLECTION": _collections, "CHECKPOINT": _checkpoints, "CONFIG": _configs}


def _paths(value: str, prefix: str) -> Iterable[str]:
    """Files and directories where `value` is; directories alone after a prefix."""
    if not value.startswith(prefix):
        return
    parent, slash, begun = value.removeprefix(prefix).rpartition("/")
    folder = Path(parent or slash or ".")
    for entry in sorted(folder.iterdir()) if folder.is_dir() else ():
        if entry.name.startswith(".") <= begun.startswith(".") and (entry.is_dir() or not prefix):
            yield f"{prefix}{parent}{slash}{entry.name}{'/' if entry.is_dir() else ''}"
