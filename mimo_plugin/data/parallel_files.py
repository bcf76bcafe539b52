"""Parallel texts in files: TSV, and Moses pairs of two aligned files; plain or gzipped."""

import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mimo_plugin.collections.faults import Faults, unreadable
from mimo_plugin.collections.jsonlines import open_binary, read_lines
from mimo_plugin.data.identity import file_identity
from mimo_plugin.errors import DataError

_CHUNK = 2**20


@dataclass(frozen=True)
class TsvFile:
    """Lines `anchor<TAB>text`.

    Attributes:
        lang: of the second column.
        anchor: language of the first column.
    """

    lang: str
    anchor: str
    path: Path

    def check(self) -> None:
        """Raises a DataError where there is no such file, or it cannot be read."""
        _check_file(self.path)

    def identity(self) -> dict[str, Any]:
        return {"kind": "tsv", "lang": self.lang, "files": [file_identity(self.path)]}

    def pairs(self, faults: Faults) -> Iterator[tuple[str, str]]:
        """Yields (text, anchor text); a line of another number of columns becomes a fault."""
        for number, line in read_lines(self.path, faults):
            columns = line.split("\t")
            if len(columns) != 2:
                more = " (`cut -f` leaves the others out)" if len(columns) > 2 else ""
                faults.add(
                    f"{self.path}:{number}: {len(columns)} columns, expected 2: {self.anchor} text, tab, "
                    f"{self.lang} text{more}"
                )
                continue
            yield columns[1], columns[0]


@dataclass(frozen=True)
class MosesFiles:
    """Two files with as many lines, of which line n of one is the translation of line n of the other.

    Attributes:
        lang: of `text`.
        anchor: language of `anchor_path`.
        anchor_path, text_path: plain or .gz, each possibly a member of a zip file.
    """

    lang: str
    anchor: str
    anchor_path: Path | zipfile.Path
    text_path: Path | zipfile.Path

    def check(self) -> None:
        """Raises a DataError where a file is not there or cannot be read, or their lines are not as many."""
        for path in (self.anchor_path, self.text_path):
            _check_file(path)
        anchors, texts = (_count_lines(path) for path in (self.anchor_path, self.text_path))
        if anchors != texts:
            raise DataError(
                f"{self.anchor_path} has {anchors:,} lines and {self.text_path} has {texts:,}, expected as "
                "many: give the two files of one alignment, or fetch them again"
            )

    def identity(self) -> dict[str, Any]:
        files = [file_identity(path) for path in (self.anchor_path, self.text_path)]
        return {"kind": "moses", "lang": self.lang, "files": files}

    def pairs(self, faults: Faults) -> Iterator[tuple[str, str]]:
        """Yields (text, anchor text); where one side is a blank line, "" for it."""
        anchors, texts = (read_lines(path, faults) for path in (self.anchor_path, self.text_path))
        anchor, text = next(anchors, None), next(texts, None)
        # Blank lines are passed over on reading: the smaller line number has no counterpart.
        while anchor is not None or text is not None:
            number = min(line[0] for line in (anchor, text) if line is not None)
            of_anchor = anchor[1] if anchor is not None and anchor[0] == number else ""
            of_text = text[1] if text is not None and text[0] == number else ""
            yield of_text, of_anchor
            if of_anchor:
                anchor = next(anchors, None)
            if of_text:
                text = next(texts, None)


def _check_file(path: Path | zipfile.Path) -> None:
    try:
        if path.is_dir():
            raise DataError(f"{path}: is a directory, expected a text file, plain or .gz")
        with path.open("rb"):
            pass
    except FileNotFoundError:
        raise DataError(f"{path}: no such file, expected parallel text: check the path") from None
    except OSError as error:
        raise DataError(unreadable(path, error)) from error


def _count_lines(path: Path | zipfile.Path) -> int:
    try:
        with open_binary(path) as file:
            lines, end = 0, b"\n"
            while chunk := file.read(_CHUNK):
                lines += chunk.count(b"\n")
                end = chunk[-1:]
            return lines + (end != b"\n")
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise DataError(
            f"{path}: cannot be read to its end ({error}), expected a whole file: fetch it again"
        ) from error
