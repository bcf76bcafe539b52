"""What the package logs while something runs."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def warnings_logged() -> Iterator[list[str]]:
    """Yields the list that the package's warnings are added to."""
    found: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: found.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("mimo_plugin")
    logger.addHandler(handler)
    try:
        yield found
    finally:
        logger.removeHandler(handler)


@contextmanager
def logs_a_warning(match: str) -> Iterator[None]:
    """Requires a warning that the pattern is found in."""
    with warnings_logged() as found:
        yield
    assert any(re.search(match, message) for message in found), found
