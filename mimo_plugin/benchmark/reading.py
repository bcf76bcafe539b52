"""YAML as plain values that know their lines. Only what a config needs: no tags, no aliases, text as keys."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from mimo_plugin.core.errors import Problems

Place = tuple[str | int, ...]

_CORE = "tag:yaml.org,2002:"
# YAML 1.1 makes dates and other things of plain text: here it stays text.
_CONSTRUCTED = frozenset(f"{_CORE}{kind}" for kind in ("null", "bool", "int", "float"))
_KINDS: dict[type[yaml.Node], str] = {
    yaml.MappingNode: "mapping",
    yaml.SequenceNode: "list",
    yaml.ScalarNode: "single value",
}
_TEXT = frozenset(f"{_CORE}{kind}" for kind in ("str", "timestamp", "merge", "value"))


@dataclass(frozen=True)
class Source:
    """A file's content.

    Attributes:
        path: the file.
        values: its mapping, of dicts, lists, text, numbers, booleans and None.
        lines: place in the values -> line, of a key or an item of a list.
        written: place of a scalar -> its text as it is written.
        whole: False where it could not be read to its end.
    """

    path: Path
    values: dict[str, Any] = field(default_factory=dict)
    lines: dict[Place, int] = field(default_factory=dict)
    written: dict[Place, str] = field(default_factory=dict)
    whole: bool = True

    def line(self, place: Place) -> int:
        """The line of a place, or of the nearest one around it."""
        return next((self.lines[place[:n]] for n in range(len(place), 0, -1) if place[:n] in self.lines), 1)


def read_source(path: Path, problems: Problems) -> Source:
    """Reads a file; what is wrong with it as YAML becomes problems, each with its line."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        problems.add(f"{path}: cannot be read ({error.strerror or error}), expected a config in YAML")
        return Source(path, whole=False)
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        problems.add(
            f"{path}:{line}: not valid UTF-8 (byte 0x{error.object[error.start]:02x}), expected UTF-8"
        )
        return Source(path, whole=False)
    return parse_source(text, path, problems)


def parse_source(text: str, path: Path, problems: Problems) -> Source:
    """As `read_source`, of a file's text."""
    try:
        root = yaml.compose(text, _Loader)
    except yaml.YAMLError as error:
        problems.add(f"{path}:{_line_of(error, text)}: not valid YAML ({_reason(error)}), expected a mapping")
        return Source(path, whole=False)
    # A number or an escape that Python cannot hold; lists in lists beyond its stack.
    except (ValueError, OverflowError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else " ".join(str(error).split())
        problems.add(f"{path}:1: cannot be read as YAML ({reason}), expected a mapping")
        return Source(path, whole=False)
    if not isinstance(root, yaml.MappingNode):
        found = "nothing" if root is None else f"a {_KINDS[type(root)]}"
        problems.add(f"{path}:1: found {found}, expected a mapping of keys such as `title: ...`")
        return Source(path, whole=False)
    source = Source(path)
    walk = _Walk(source, problems)
    source.values.update(walk.mapping(root, ()))
    return source


class _Loader(yaml.SafeLoader):
    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(
                None, None, f"an alias, *{event.anchor}: write it out", event.start_mark
            )
        return super().compose_node(parent, index)


class _Walk:
    """From nodes to values, with lines and faults noted on the way."""

    def __init__(self, source: Source, problems: Problems) -> None:
        self._source = source
        self._problems = problems
        self._constructor = yaml.constructor.SafeConstructor()

    def mapping(self, node: yaml.MappingNode, place: Place) -> dict[str, Any]:
        found: dict[str, Any] = {}
        self._check_tag(node, f"{_CORE}map")
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                self._add(line, f"a key that is a {_KINDS[type(key)]}, expected text")
                continue
            inside = (*place, key.value)
            if key.value in found:
                first = self._source.lines[inside]
                self._add(
                    line, f"{key.value!r} is there twice (first in line {first}), expected each key once"
                )
                continue
            self._source.lines[inside] = line
            found[key.value] = self._value(value, inside)
        return found

    def _value(self, node: yaml.Node, place: Place) -> Any:
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, place)
        if isinstance(node, yaml.SequenceNode):
            self._check_tag(node, f"{_CORE}seq")
            return list(self._items(node, place))
        return self._scalar(node, place)

    def _items(self, node: yaml.SequenceNode, place: Place) -> Iterator[Any]:
        for number, item in enumerate(node.value):
            inside = (*place, number)
            self._source.lines[inside] = item.start_mark.line + 1
            yield self._value(item, inside)

    def _scalar(self, node: yaml.Node, place: Place) -> Any:
        self._source.written[place] = node.value
        if node.tag in _TEXT:
            return node.value
        if node.tag in _CONSTRUCTED:
            try:
                return self._constructor.construct_object(node)
            except (yaml.YAMLError, ValueError, KeyError, IndexError, OverflowError):
                kind = node.tag.removeprefix(_CORE)
                self._add(node.start_mark.line + 1, f"{node.value[:40]!r}, expected a YAML {kind}")
                return None
        self._check_tag(node, f"{_CORE}str")
        return node.value

    def _check_tag(self, node: yaml.Node, expected: str) -> None:
        if node.tag != expected:
            self._add(node.start_mark.line + 1, f"the tag {node.tag!r}, expected a plain value without a tag")

    def _add(self, line: int, message: str) -> None:
        self._problems.add(f"{self._source.path}:{line}: {message}")


def _line_of(error: yaml.YAMLError, text: str) -> int:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    if mark is not None:
        return int(mark.line) + 1
    position = getattr(error, "position", 0)
    return text.count("\n", 0, position) + 1


def _reason(error: yaml.YAMLError) -> str:
    said = [getattr(error, name, None) for name in ("context", "problem", "reason")]
    return " ".join("; ".join(part for part in said if part).split()) or type(error).__name__
