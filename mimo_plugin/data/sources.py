"""Sources of parallel texts: TSV files, Moses files, datasets; and how a manifest identifies its sources."""

import hashlib
import json
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, islice, product
from pathlib import Path
from typing import Any

from mimo_plugin.collections import loading as hub
from mimo_plugin.collections.folder import FOLDER_PREFIX, parse_spec
from mimo_plugin.collections.records import check_text
from mimo_plugin.collections.rows import open_binary, read_lines, unreadable
from mimo_plugin.core.environment import hub_problem, without_dataset_logs
from mimo_plugin.core.errors import DataError, MimoError, Problems

_KEY_LENGTH = 10
# A file, or a member of a zip file.
AnyPath = Path | zipfile.Path


def identity_key(identity: Mapping[str, Any]) -> str:
    """A short hash of plain data that determines a step's result."""
    text = json.dumps(identity, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:_KEY_LENGTH]


def file_identity(path: AnyPath) -> dict[str, Any]:
    """Name, size and SHA-256 of a file.

    Raises:
        DataError: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256")  # type: ignore[arg-type]
            return {"name": path.name, "bytes": file.tell(), "sha256": digest.hexdigest()}
    except OSError as error:
        raise DataError(unreadable(path, error)) from error
    except (zipfile.BadZipFile, zlib.error) as error:
        raise DataError(
            f"{path}: damaged zip file ({error}), expected a whole one: fetch it again"
        ) from error


def files_identity(path: Path) -> list[dict[str, Any]]:
    """The identity of a file, or of every file of a directory."""
    files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
    return [file_identity(file) for file in files]


def collection_identity(spec: str) -> Any:
    """A collection's id; for a local or hub folder, its name and its files' hashes.

    Raises:
        DataError: there is no such folder, or a file of it cannot be read.
    """
    if spec.startswith(hub.HUB_PREFIX):
        spec = hub.folder_spec(spec)
    if not spec.startswith(FOLDER_PREFIX):
        return spec
    folder = parse_spec(spec)
    files = [file_identity(file) for file in folder.files]
    return {"folder": folder.place.name, "split": folder.split, "files": files}


@dataclass(frozen=True)
class PairSource:
    """Parallel texts in two languages.

    Attributes:
        lang: of the texts.
        anchor: language of the anchor texts, which the teacher sees.
    """

    lang: str
    anchor: str

    def check(self) -> None:
        """Raises a DataError if texts are missing or unreadable; called before any source is read."""
        raise NotImplementedError

    def identity(self) -> dict[str, Any]:
        """The source in the manifest: kind, language, files with their SHA-256."""
        raise NotImplementedError

    def pairs(self, faults: Problems) -> Iterator[tuple[str, str]]:
        """Yields (text, anchor text), "" for a missing text; adds a fault for each bad line."""
        raise NotImplementedError


@dataclass(frozen=True)
class TsvFile(PairSource):
    """Lines `anchor<TAB>text`."""

    path: Path

    def check(self) -> None:
        _check_file(self.path)

    def identity(self) -> dict[str, Any]:
        return {"kind": "tsv", "lang": self.lang, "files": [file_identity(self.path)]}

    def pairs(self, faults: Problems) -> Iterator[tuple[str, str]]:
        for number, line in read_lines(self.path, faults):
            columns = line.split("\t")
            if len(columns) == 2:
                yield columns[1], columns[0]
                continue
            more = " (`cut -f` removes the others)" if len(columns) > 2 else ""
            faults.add(
                f"{self.path}:{number}: {len(columns)} columns, expected 2: {self.anchor} text, tab, "
                f"{self.lang} text{more}"
            )


@dataclass(frozen=True)
class MosesFiles(PairSource):
    """Two files with the same number of lines: line n of one is the translation of line n of the other."""

    anchor_path: AnyPath
    text_path: AnyPath

    def check(self) -> None:
        paths = (self.anchor_path, self.text_path)
        for path in paths:
            _check_file(path)
        anchors, texts = map(_count_lines, paths)
        if anchors != texts:
            raise DataError(
                f"{self.anchor_path} has {anchors:,} lines and {self.text_path} has {texts:,}, expected the "
                "same number: give the two files of one alignment, or fetch them again"
            )

    def identity(self) -> dict[str, Any]:
        files = [file_identity(path) for path in (self.anchor_path, self.text_path)]
        return {"kind": "moses", "lang": self.lang, "files": files}

    def pairs(self, faults: Problems) -> Iterator[tuple[str, str]]:
        anchors, texts = (read_lines(path, faults) for path in (self.anchor_path, self.text_path))
        anchor, text = next(anchors, None), next(texts, None)
        # Blank lines are skipped on reading: the smaller line number has no counterpart.
        while anchor is not None or text is not None:
            number = min(line[0] for line in (anchor, text) if line is not None)
            of_anchor = anchor[1] if anchor is not None and anchor[0] == number else ""
            of_text = text[1] if text is not None and text[0] == number else ""
            yield of_text, of_anchor
            if of_anchor:
                anchor = next(anchors, None)
            if of_text:
                text = next(texts, None)


def _check_file(path: AnyPath) -> None:
    try:
        if path.is_dir():
            raise DataError(f"{path}: is a directory, expected a text file, plain or .gz")
        path.open("rb").close()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file, expected parallel text: check the path") from None
    except OSError as error:
        raise DataError(unreadable(path, error)) from error


def _count_lines(path: AnyPath) -> int:
    try:
        with open_binary(path) as file:
            return sum(1 for _ in file)
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        raise DataError(
            f"{path}: cannot be read to its end ({error}), expected a whole file: fetch it again"
        ) from error


# The columns are checked in the first of these rows without a null.
_CHECKED_ROWS = 1000
_TRANSLATION = {"language", "translation"}
_BUILDERS = {".parquet": "parquet", ".json": "json", ".jsonl": "json", ".csv": "csv", ".arrow": "arrow"}


@dataclass(frozen=True)
class DatasetColumns(PairSource):
    """Two columns of a dataset's split, streamed without the cache of `datasets`.

    Attributes:
        name: a hub id, or a local file or directory.
        config: of a hub dataset; None if it has only one.
        anchor_column, text_column: names. A dot leads into a nested column (`translation.en`), also to a
            language in one with the fields `language` and `translation`: `datasets` stores several
            translations per row so (TranslationVariableLanguages).
    """

    name: str
    config: str | None
    split: str
    anchor_column: str
    text_column: str

    def check(self) -> None:
        columns = (self.anchor_column, self.text_column)
        for row in islice(self._rows(), _CHECKED_ROWS):
            # A null may hide a missing column.
            if None not in chain(*(self._values(row, column) for column in columns)):
                break

    def identity(self) -> dict[str, Any]:
        known = {
            "kind": "dataset",
            "lang": self.lang,
            "split": self.split,
            "columns": [self.anchor_column, self.text_column],
        }
        if not self._local:
            return {**known, "name": self.name, "config": self.config, "revision": self._revision}
        path = Path(self.name)
        return {**known, "name": path.name, "files": files_identity(path)}

    def pairs(self, faults: Problems) -> Iterator[tuple[str, str]]:
        return chain.from_iterable(faults.convert(enumerate(self._rows(), start=1), self._texts))

    def _texts(self, numbered: tuple[int, Any]) -> list[tuple[str, str]]:
        """A row's pairs: every translation with every anchor text."""
        number, row = numbered
        text, anchor = (
            [
                "" if value is None else check_text(value, f"{self._title}: {column!r} of row {number}")
                for value in self._values(row, column)
            ]
            for column in (self.text_column, self.anchor_column)
        )
        return list(product(text, anchor))

    @property
    def _title(self) -> str:
        return f"{self.name}{f':{self.config}' if self.config else ''}"

    @property
    def _local(self) -> bool:
        return Path(self.name).exists()

    @cached_property
    def _revision(self) -> str:
        """The hub dataset's commit, the same for a whole command."""
        from huggingface_hub import HfApi

        return str(HfApi().dataset_info(self.name).sha)

    @cached_property
    def _dataset(self) -> Any:
        """The split as `datasets` streams it."""
        import datasets

        path, streamed = Path(self.name), {"split": self.split, "streaming": True}
        if not self._local:
            self._require_hub()
        try:
            if not self._local:
                return datasets.load_dataset(self.name, self.config, revision=self._revision, **streamed)
            if any((path / name).is_file() for name in ("state.json", "dataset_dict.json")):
                saved = datasets.load_from_disk(self.name)
                return saved[self.split] if isinstance(saved, datasets.DatasetDict) else saved
            if path.is_dir():
                return datasets.load_dataset(self.name, **streamed)
            suffixes = [suffix for suffix in path.suffixes if suffix != ".gz"]
            if not suffixes or suffixes[-1] not in _BUILDERS:
                raise DataError(
                    f"{path}: expected a file that ends in {', '.join(_BUILDERS)}, or in one of these and "
                    ".gz; for tab-separated text there is --tsv"
                )
            files = {self.split: self.name}
            return datasets.load_dataset(_BUILDERS[suffixes[-1]], data_files=files, **streamed)
        except MimoError:
            raise
        except Exception as error:
            raise DataError(
                f"{self._title}: split {self.split!r} cannot be loaded: {error_line(error)}; expected a "
                "file, a directory or a hub id that `datasets` loads"
            ) from error

    def _require_hub(self) -> None:
        if self.name.count("/") > 1 or self.name.startswith((".", "/", "~")):
            raise DataError(
                f"{self.name}: no such file or directory; expected one, or the id of a hub dataset"
            )
        if why := hub_problem():
            raise DataError(
                f"{self._title}: no such file or directory, and {why}: download it on a machine with a "
                f"network (hf download --repo-type dataset {self.name}) and give its directory"
            )

    def _rows(self) -> Iterator[Any]:
        dataset, count = self._dataset, 0
        try:
            with without_dataset_logs():
                for row in dataset:
                    count += 1
                    yield row
        except MimoError:
            raise
        except Exception as error:
            advice = "repair the file" if self._local else "the download failed, run the command again"
            raise DataError(
                f"{self._title}: cannot be read after row {count}: {error_line(error)}; {advice}"
            ) from error

    def _values(self, row: Any, column: str) -> list[Any]:
        """A column's values in a row, at least one; None if it is null at any depth."""
        value = row
        # A name with a dot may be a column's own, or lead into a nested column.
        keys = [column] if column in row else column.split(".")
        for key in keys:
            if value is None:
                return [None]
            translations = _translations(value, keys[-1], self._title)
            if translations is not None:
                return translations or [None]
            if not isinstance(value, dict) or key not in value:
                raise DataError(
                    f"{self._title}: no column {column!r}, it has {', '.join(map(repr, row))}: name the "
                    "column of anchor texts and that of the texts with --columns ANCHOR,TEXT"
                )
            value = value[key]
        return [value]


def _translations(value: Any, lang: str, where: str) -> list[Any] | None:
    """A language's texts in a list of translations or two aligned lists; None for another value."""
    if isinstance(value, dict) and isinstance(value.get("language"), list) and "translation" in value:
        languages, texts = value["language"], value["translation"]
        count = len(texts) if isinstance(texts, list) else "no list of"
        if count != len(languages):
            raise DataError(
                f"{where}: {len(languages)} languages and {count} translations in one row, expected the same "
                "number of each"
            )
        return [text for own, text in zip(languages, texts, strict=True) if own == lang]
    if isinstance(value, list) and all(isinstance(one, dict) and one.keys() >= _TRANSLATION for one in value):
        return [one["translation"] for one in value if one["language"] == lang]
    return None


def error_line(error: Exception) -> str:
    """Another library's error in one line."""
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
