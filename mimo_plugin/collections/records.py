"""What a collection is made of once it is in the house."""

from typing import NamedTuple

from mimo_plugin.errors import DataError

# What to do with records that have one id and different content.
ERROR, FIRST = "error", "first"


class Doc(NamedTuple):
    """A document; `lang` is "" where nothing tells it."""

    doc_id: str
    text: str
    lang: str

    def default_text(self) -> str:
        return self.text


class Query(NamedTuple):
    """A query; `lang` is "" where nothing tells it."""

    query_id: str
    text: str
    lang: str

    def default_text(self) -> str:
        return self.text


def check_id(identifier: object, where: str) -> str:
    """Returns the id if a TREC run can carry it.

    Args:
        where: what the id is and where it stands; the error starts with it.

    Raises:
        DataError: not a string, empty, with white space or a NUL in it, or no valid Unicode.
    """
    if not isinstance(identifier, str):
        raise DataError(f"{where} is {_kind(identifier)}, expected a string: write it in quotes")
    check_text(identifier, where)
    if "\0" in identifier:
        raise DataError(f"{where} {identifier!r} holds a NUL character: rename it in its source")
    if identifier.split() != [identifier]:
        fault = f"{identifier!r} has white space in it" if identifier.strip() else "is empty"
        raise DataError(f"{where} {fault}, expected an id without white space: rename it in its source")
    return identifier


def check_text(text: object, where: str) -> str:
    """Returns the text if it can be encoded as UTF-8; empty text is fine.

    Raises:
        DataError: not a string, or with half a surrogate pair in it.
    """
    if not isinstance(text, str):
        raise DataError(f"{where} is {_kind(text)}, expected a string")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"{where} is not valid Unicode: a lone surrogate (U+{ord(text[error.start]):04X}) at character "
            f"{error.start}, expected whole characters: repair the source"
        ) from None
    return text


def _kind(value: object) -> str:
    return "missing" if value is None else f"of type {type(value).__name__} ({value!r:.40})"
