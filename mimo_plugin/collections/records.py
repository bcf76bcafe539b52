"""`Doc` and `Query`: their ids, texts and languages."""

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from mimo_plugin.core.errors import DataError

# Policies for records with the same id and different content.
ERROR, FIRST = "error", "first"


class Doc(NamedTuple):
    """A document; `lang` is "" if unknown."""

    doc_id: str
    text: str
    lang: str

    def default_text(self) -> str:
        return self.text


class Query(NamedTuple):
    """A query; `lang` is "" if unknown."""

    query_id: str
    text: str
    lang: str

    def default_text(self) -> str:
        return self.text


class TitledDoc(NamedTuple):
    """A document with a title; `title` and `lang` are "" if the record has none."""

    doc_id: str
    title: str
    text: str
    lang: str

    def default_text(self) -> str:
        """Title and text, joined as in ir_datasets' BEIR; the text alone without a title."""
        return f"{self.title} {self.text}" if self.title else self.text


def check_id(identifier: object, where: str) -> str:
    """Returns the id if a TREC run can carry it.

    Args:
        where: what the id is and its place; the error starts with it.

    Raises:
        DataError: not a string, empty, with white space or a NUL, or not valid Unicode.
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
        DataError: not a string, or with a lone surrogate.
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


def pooled_id(prefix: str, identifier: str) -> str:
    """The id of a document or query in a pool; an empty prefix leaves it unchanged.

    Prefixes contain no colon, so collections with different prefixes never share an id.
    """
    return f"{prefix}:{identifier}" if prefix else identifier


def text_fields(cls: Any) -> list[str]:
    """The fields of a document or query class that may make up its text."""
    return [name for name in cls._fields if name not in ("doc_id", "query_id", "lang")]


def check_fields(fields: Sequence[str], cls: Any, spec: str, records: str = "documents") -> None:
    """Raises a DataError with the known fields if a class of records lacks one of `fields`."""
    known = text_fields(cls)
    unknown = [name for name in fields if name not in known]
    if unknown or not fields:
        asked = f"no field {', '.join(map(repr, unknown))}" if fields else "no field was named"
        raise DataError(f"{spec}: {asked}, its {records} have {', '.join(known)}")


def text_of(record: Any, fields: Sequence[str] | None, where: str) -> str:
    """The named non-empty fields joined by a space; without names ir_datasets' default text.

    Raises:
        DataError: there is no default text, or a field holds something else.
    """
    if fields is not None:
        values = {name: getattr(record, name) for name in fields}
        for name, value in values.items():
            if value is not None and not isinstance(value, str):
                raise DataError(
                    f"{where}: field {name!r} holds {type(value).__name__}, expected text: name another"
                )
        return check_text(" ".join(filter(None, values.values())), where)
    if hasattr(record, "default_text"):
        return check_text(record.default_text(), where)
    if hasattr(record, "text"):
        return check_text(record.text, where)
    raise DataError(
        f"{where}: records of type {type(record).__name__} have no default text and no field 'text': choose "
        f"with --fields from {', '.join(record._fields)}"
    )


# mMARCO's own code for Dutch, and ISO 639-3 codes of NeuCLIR.
_ISO = {"dt": "nl", "eng": "en", "fas": "fa", "rus": "ru", "zho": "zh"}


def usual_language(code: str | None) -> str:
    """The ISO 639-1 code for a dataset's own code; "" for None."""
    return _ISO.get(code, code) if code else ""


def common_language(languages: Iterable[str | None]) -> str | None:
    """The language of all; None if there are several, or one is unknown."""
    usual = {usual_language(language) for language in languages}
    return next(iter(usual)) or None if len(usual) == 1 else None
