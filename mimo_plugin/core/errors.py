"""Errors that a user can meet, and a collector that reports several together.

A message is one line: what was found, what was expected, what to do. The command line prints it without a
traceback and exits with the class's `exit_code`.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Self, TypeVar

T = TypeVar("T")
U = TypeVar("U")


class MimoError(Exception):
    """Base of every error that this package raises on purpose."""

    exit_code = 1


class UsageError(MimoError):
    """Options are invalid, whatever the data."""

    exit_code = 2


class EnvironmentProblem(MimoError):
    """Something outside the package is missing: Java, an optional dependency, a file, disk space."""


class DataError(MimoError):
    """A collection, a run, qrels or another input file is invalid."""


class ModelError(MimoError):
    """A checkpoint cannot be loaded, or its vectors are unusable."""


class ArtifactError(MimoError):
    """A directory of a command is incomplete, corrupted, foreign or of other options."""


def near(name: str, known: Iterable[str], count: int = 3) -> str:
    """`"; near: NAME, ..."` for a message about an unknown name; "" if no known name is similar.

    >>> near("ndgc", ["map", "ndcg"])
    '; near: ndcg'
    """
    found = get_close_matches(name, list(known), n=count)
    return f"; near: {', '.join(found)}" if found else ""


class Problems:
    """Collects every problem of one command or file, so that all are reported together.

    >>> problems = Problems(DataError)
    >>> problems.add("run.trec:3: 5 columns, expected 6")
    >>> with problems.collect():
    ...     raise UsageError("alpha is 5, expected a level between 0 and 1")
    >>> problems.raise_any()
    Traceback (most recent call last):
    mimo_plugin.core.errors.DataError: run.trec:3: 5 columns, expected 6
    alpha is 5, expected a level between 0 and 1

    `with Problems() as problems:` raises at the end of its block. A generator that reads in the block yields
    the valid records and raises at its end: read to the end before using any record.

    Args:
        error: default class of added messages.
        limit: largest number of added messages to keep; further ones are counted.
        stop: raise at the limit, so that a file of another format is not read to its end.
    """

    def __init__(self, error: type[MimoError] = DataError, limit: int = 20, *, stop: bool = False) -> None:
        self._error = error
        self._limit = limit
        self._stop = stop
        self._found: list[tuple[type[MimoError], str]] = []
        self._added = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if kind is None:
            self.raise_any()

    def add(self, message: str, error: type[MimoError] | None = None) -> None:
        """Adds one problem. error: its class, if not the default."""
        self._added += 1
        if self._added <= self._limit:
            self._found.append((error or self._error, message))
        if self._stop and self._added == self._limit:
            self.raise_any()

    def extend(self, messages: Iterable[str], error: type[MimoError] | None = None) -> None:
        for message in messages:
            self.add(message, error)

    @contextmanager
    def collect(self) -> Iterator[None]:
        """Adds the problems of a `MimoError` raised in the block, and continues after the block."""
        try:
            yield
        except MimoError as error:
            # Subclasses elsewhere may be made of more than a message.
            kind = next(kind for kind in type(error).__mro__ if kind.__module__ == __name__)
            self._found += [(kind, line) for line in str(error).splitlines()]

    def convert(self, records: Iterator[T], convert: Callable[[T], U]) -> Iterator[U]:
        """Yields converted records; adds the problems of converting and of reading."""
        while True:
            try:
                record = next(records)
            except StopIteration:
                return
            except DataError as error:
                self.extend(str(error).splitlines())
                return
            try:
                converted = convert(record)
            except DataError as error:
                self.extend(str(error).splitlines())
                continue
            yield converted

    def __len__(self) -> int:
        return len(self._found)

    def raise_any(self) -> None:
        """Raises one error with all problems, a line each, if there are any.

        It is a `UsageError` if all problems are, else an error of the first other class.
        """
        if not self._found:
            return
        kind = next((kind for kind, _ in self._found if not issubclass(kind, UsageError)), UsageError)
        lines = [message for _, message in self._found]
        if self._stop and self._added >= self._limit:
            lines.append(
                f"reading stopped after {self._limit} faults, expected none: there may be more of them"
            )
        elif self._added > self._limit:
            lines.append(f"... and {self._added - self._limit} more")
        raise kind("\n".join(lines))
