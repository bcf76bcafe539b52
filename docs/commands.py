"""Fills the page of commands with each command's `--help`, when the site is built."""

from collections.abc import Iterator
from typing import Any

import click

from mimo_plugin.cli import mimo


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    if page.file.src_uri != "commands.md":
        return markdown
    return "\n".join([markdown, *_sections(mimo, ["mimo"])])


def _sections(command: click.Command, path: list[str], parent: click.Context | None = None) -> Iterator[str]:
    context = command.make_context(path[-1], [], parent, resilient_parsing=True, terminal_width=100)
    yield f"\n## {' '.join(path)}\n\n```text\n{command.get_help(context)}\n```"
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            if (found := command.get_command(context, name)) is not None and not found.hidden:
                yield from _sections(found, [*path, name], context)
