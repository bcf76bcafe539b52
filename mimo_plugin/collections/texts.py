"""What the text of a record is."""

from collections.abc import Sequence
from typing import Any

from mimo_plugin.errors import DataError

# Not text, whatever else a document class holds.
_NOT_TEXT = ("doc_id", "lang")


def default_text(record: Any, where: str) -> Any:
    """What ir_datasets calls the record's default text; its field `text` where the class has no default.

    Raises:
        DataError: neither is there.
    """
    if hasattr(record, "default_text"):
        return record.default_text()
    if hasattr(record, "text"):
        return record.text
    raise DataError(
        f"{where}: records of type {type(record).__name__} have no default text and no field 'text': choose "
        f"with --fields from {', '.join(record._fields)}"
    )


def text_fields(docs_cls: Any) -> list[str]:
    """The fields of a document class that may make its text."""
    return [name for name in docs_cls._fields if name not in _NOT_TEXT]


def check_fields(fields: Sequence[str], docs_cls: Any, spec: str) -> None:
    """Raises a DataError that lists the fields when a document class lacks one of those asked for."""
    known = text_fields(docs_cls)
    unknown = [name for name in fields if name not in known]
    if unknown or not fields:
        asked = f"no field {', '.join(map(repr, unknown))}" if fields else "no field was named"
        raise DataError(f"{spec}: {asked}, its documents have {', '.join(known)}")


def fields_text(record: Any, fields: Sequence[str], where: str) -> str:
    """The named fields of a document joined by a space, empty ones left out.

    Raises:
        DataError: a field holds something that is not text.
    """
    pieces = []
    for name in fields:
        value = getattr(record, name)
        if value is not None and not isinstance(value, str):
            raise DataError(
                f"{where}: field {name!r} holds {type(value).__name__}, expected text: name another"
            )
        if value:
            pieces.append(value)
    return " ".join(pieces)
