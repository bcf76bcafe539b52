"""Debian's package descriptions: fetched by apt and cleaned, or read from a parsed table."""

import gzip
import json
import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from mimo_plugin.collections.rows import get_id, get_text, read_objects
from mimo_plugin.core.environment import bar
from mimo_plugin.core.errors import DataError, EnvironmentProblem, Problems
from mimo_plugin.data.options import CleaningOptions, language_code

Dropped = dict[str, Counter[str]]
NO_TEXT, TOO_SHORT, UNTRANSLATED = "empty text", "too short", "untranslated"
NO_TRANSLATION, DUPLICATE = "no translation", "the same English long text"


class DescriptionTexts(NamedTuple):
    """A description in one language: its first line and its body."""

    short: str
    long: str


class Row(NamedTuple):
    """A package description.

    Attributes:
        id: the first twelve hexadecimal digits of `Description-md5`.
        package: a package with this description; the id in a table that names none.
        text: language -> its texts, English first if it has any.
    """

    id: str
    package: str
    text: dict[str, DescriptionTexts]

    def english(self) -> DescriptionTexts:
        """The English texts, or those of another language if there are none."""
        return self.text.get("en") or next(iter(self.text.values()))


def read_tables(paths: Sequence[Path], languages: Collection[str] = ()) -> tuple[list[list[Row]], Dropped]:
    """Reads parsed tables, plain or gzipped.

    Args:
        languages: codes to read; none reads all.

    Returns:
        Each table's rows with texts in at least two languages; and the texts left out, reason -> language ->
        count.

    Raises:
        DataError: with the bad lines of all tables, or a table has no rows.
    """
    dropped: Dropped = {NO_TEXT: Counter(), NO_TRANSLATION: Counter()}
    tables = []
    problems = Problems()
    for path in paths:
        with problems.collect():
            tables.append(_read_table(path, languages, dropped))
    problems.raise_any()
    return tables, dropped


def _read_table(path: Path, languages: Collection[str], dropped: Dropped) -> list[Row]:
    lines: dict[str, int] = {}
    rows = []
    with Problems(stop=True) as faults:
        for row in faults.convert(read_objects(path, faults), partial(_row, path, lines)):
            wanted = {lang: texts for lang, texts in row.text.items() if not languages or lang in languages}
            kept = {lang: texts for lang, texts in wanted.items() if texts.short and texts.long}
            dropped[NO_TEXT].update(wanted.keys() - kept.keys())
            if len(kept) > 1:
                rows.append(row._replace(text=kept))
            else:
                dropped[NO_TRANSLATION].update(kept.keys())
    if not rows:
        raise DataError(f"{path}: no description has two languages or more, expected at least one")
    return rows


def _row(path: Path, lines: dict[str, int], numbered: tuple[int, dict[str, Any]]) -> Row:
    number, record = numbered
    where = f"{path}:{number}"
    identifier = get_id(record, "id", where)
    first = lines.setdefault(identifier, number)
    if first != number:
        raise DataError(f"{where}: id {identifier!r} is also in line {first}, expected each id once")
    package = get_id(record, "package", where) if "package" in record else identifier
    versions = record.get("text")
    if not isinstance(versions, dict):
        raise DataError(f"{where}: 'text' is no object, expected {{LANG: {{'short': ..., 'long': ...}}}}")
    text: dict[str, DescriptionTexts] = {}
    for code, version in versions.items():
        place = f"{where}: {code!r}"
        try:
            lang = language_code(code)
        except DataError as error:
            raise DataError(f"{where}: {error}") from None
        if lang in text:
            raise DataError(f"{where}: {lang!r} occurs twice (also as {code!r}), expected each language once")
        if not isinstance(version, dict):
            raise DataError(f"{place} is no object, expected one with 'short' and 'long'")
        short, long = (get_text(version, name, place).strip() for name in ("short", "long"))
        text[lang] = DescriptionTexts(short, long)
    return Row(identifier, package, text)


def write_table(path: Path, rows: Iterable[Row]) -> None:
    """Writes a table for `read_tables`; the same rows give the same bytes."""
    with (
        path.open("wb") as raw,
        gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as file,
    ):
        for row in rows:
            text = {lang: texts._asdict() for lang, texts in row.text.items()}
            line = json.dumps({"id": row.id, "package": row.package, "text": text}, ensure_ascii=False)
            file.write(f"{line}\n".encode())


_INSTEAD = (
    "give a parsed table with --from-table FILE.jsonl.gz (the table.jsonl.gz that this command writes on a "
    "Debian or Ubuntu machine)"
)
# Settings of the machine that are kept: how to reach the archive, and where its keys and sources are. Those
# of languages are not kept, nor those that accept unsigned or weakly signed indexes.
_KEPT = re.compile(
    r"(Acquire::(?!Languages|IndexTargets|GzipIndexes|CompressionTypes|Allow)[^ ]+"
    r"|Dir::Etc::(sourcelist|sourceparts|trusted|trustedparts|netrc|netrcparts)|Dir::Bin::methods) \".*\";",
    re.IGNORECASE,
)
_SETTINGS = """\
Dir::Etc::Main "/dev/null";
Dir::Etc::Parts "/dev/null";
Dir::State "{directory}/state";
Dir::State::Lists "{directory}/lists";
Dir::State::status "{directory}/status";
Dir::Cache "{directory}/cache";
Dir::Log "{directory}/log";
Acquire::GzipIndexes "false";
Acquire::IndexTargets::deb::Packages::DefaultEnabled "false";
APT::Sandbox::User "root";
APT::Update::Error-Mode "any";
"""
_RELEASE_FIELD = re.compile(r"^(Date|Version): *(.*)", re.MULTILINE)
_REASON = re.compile(r"[EW]: (.*)")


class _Target(NamedTuple):
    """A translation index that apt fetched, with apt's field names; `language` is the archive's code."""

    filename: str
    language: str
    site: str
    release: str
    component: str


class Release(NamedTuple):
    """A suite of an archive.

    Attributes:
        date, version: from its Release file, such as version 12.15; "" if missing.
    """

    site: str
    suite: str
    components: tuple[str, ...]
    date: str
    version: str


def check_apt() -> None:
    """Raises an EnvironmentProblem without apt."""
    missing = [name for name in ("apt-get", "apt-config") if shutil.which(name) is None]
    if missing:
        raise EnvironmentProblem(
            f"{' and '.join(missing)} not found: Debian's descriptions are fetched by the package manager of "
            f"a Debian or Ubuntu machine. Run the command on one, or {_INSTEAD}"
        )


def read_archive(
    languages: Sequence[str], sources: Sequence[str], *, progress: bool | None = None
) -> tuple[list[Row], list[Release]]:
    """Fetches the indexes of the languages and joins them by the hash of the English description.

    Args:
        languages: the archive's codes, English among them.
        sources: lines as in apt's sources.list; none takes the machine's own.

    Returns:
        The descriptions, each with English, in the order of the English index; and their suites.

    Raises:
        EnvironmentProblem: apt failed, or the sources have no translations.
    """
    rows: dict[str, Row] = {}
    with TemporaryDirectory(prefix="mimo-apt-") as directory:
        targets = _fetch(Path(directory), languages, sources, progress=progress)
        releases = list(_releases(targets))
        # English first, since translations refer to it.
        for target in sorted(targets, key=lambda one: one.language != "en"):
            lang = language_code(target.language)
            with Path(target.filename).open(encoding="utf-8", errors="replace") as lines:
                for entry in entries(lines, target.language):
                    if lang == "en":
                        rows.setdefault(entry.md5, Row(entry.md5[:12], entry.package, {}))
                    if entry.md5 in rows:
                        # Suites and packages may share a description.
                        rows[entry.md5].text.setdefault(lang, DescriptionTexts(entry.short, entry.long))
    if not rows:
        raise EnvironmentProblem(
            "the package sources have no English descriptions (Translation-en), expected those of a Debian "
            "or Ubuntu archive: name one with --source, or give a parsed table with --from-table"
        )
    return list(rows.values()), releases


def _fetch(
    directory: Path, languages: Sequence[str], sources: Sequence[str], *, progress: bool | None
) -> list[_Target]:
    environment = _configure(directory, languages, sources)
    _update(environment, progress=progress)
    columns = "\t".join(f"$({field.upper()})" for field in _Target._fields)
    listed = _run(["apt-get", "indextargets", "--format", columns, "Created-By: Translations"], environment)
    targets = [_Target(*line.split("\t")) for line in listed.splitlines()]
    found = [target for target in targets if target.language in languages and Path(target.filename).is_file()]
    if not found:
        named = "; ".join(sources) or "those of this machine (apt-cache policy shows them)"
        raise EnvironmentProblem(
            f"no translations of package descriptions in the package sources, {named}: name an archive that "
            f"has them with --source, or {_INSTEAD}"
        )
    return found


def _configure(directory: Path, languages: Sequence[str], sources: Sequence[str]) -> dict[str, str]:
    """Writes apt's configuration and returns an environment in which apt reads only that."""
    for name in ("lists/partial", "state", "cache/archives/partial", "log"):
        (directory / name).mkdir(parents=True)
    (directory / "status").touch()
    plain = {**os.environ, "LC_ALL": "C.UTF-8"}
    machine = _run(["apt-config", "dump"], plain).splitlines()
    lines = [line for line in machine if _KEPT.fullmatch(line)]
    lines.append(_SETTINGS.format(directory=directory))
    lines += [f'Acquire::Languages:: "{code}";' for code in languages]
    if sources:
        (directory / "sources.list").write_text("".join(f"{line}\n" for line in sources), encoding="utf-8")
        lines += [f'Dir::Etc::SourceList "{directory}/sources.list";', 'Dir::Etc::SourceParts "/dev/null";']
    configuration = directory / "apt.conf"
    configuration.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return {**plain, "APT_CONFIG": str(configuration)}


def _update(environment: Mapping[str, str], *, progress: bool | None) -> None:
    """Runs `apt-get update` with a progress bar over files."""
    with (
        subprocess.Popen(
            ["apt-get", "update"],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        ) as process,
        bar(what="Fetching descriptions", unit="files", enabled=progress) as fetched,
    ):
        reasons = []
        try:
            for line in process.stdout or ():
                fetched.update(line.startswith(("Get:", "Hit:")))
                if match := _REASON.match(line):
                    reasons.append(match[1].strip())
        except BaseException:
            process.terminate()
            raise
    # Older versions of apt only warn if a file was not fetched.
    if process.returncode or any("Failed to fetch" in reason for reason in reasons):
        reason = reasons[0] if reasons else f"exit status {process.returncode}"
        raise EnvironmentProblem(
            f"apt-get could not fetch the descriptions: {reason}; nothing was written. Fix this and run the "
            f"command again, name another archive with --source, or {_INSTEAD}"
        )


def _run(command: Sequence[str], environment: Mapping[str, str]) -> str:
    done = subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace"
    )
    if done.returncode:
        reason = next(iter(_REASON.findall(done.stderr)), f"exit status {done.returncode}")
        raise EnvironmentProblem(f"{' '.join(command[:2])} failed: {reason}; repair apt, or {_INSTEAD}")
    return done.stdout


def _releases(targets: Iterable[_Target]) -> Iterator[Release]:
    """The suites of the indexes, with date and version from their Release files."""
    suites: dict[tuple[str, str], list[_Target]] = {}
    for target in targets:
        suites.setdefault((target.site, target.release), []).append(target)
    for (site, suite), own in suites.items():
        index = Path(own[0].filename)
        # apt names both files after their URL.
        files = (
            file
            for name in ("InRelease", "Release")
            for file in index.parent.glob(f"*_{name}")
            if index.name.startswith(file.name.removesuffix(name))
        )
        file = next(files, None)
        text = file.read_text(encoding="utf-8", errors="replace") if file else ""
        fields = dict(_RELEASE_FIELD.findall(text))
        components = tuple(dict.fromkeys(target.component for target in own))
        yield Release(site, suite, components, fields.get("Date", ""), fields.get("Version", ""))


class Entry(NamedTuple):
    """A package's description in one language.

    Attributes:
        md5: of the English description, also in translations.
        short: the first line.
        long: all other lines and paragraphs, joined by spaces.
    """

    package: str
    md5: str
    short: str
    long: str


def entries(lines: Iterable[str], language: str) -> Iterator[Entry]:
    """Yields the descriptions of an index, and skips stanzas without one.

    Args:
        language: the archive's code, as in the field name `Description-pt_BR`.
    """
    description = f"description-{language}".lower()
    for stanza in _stanzas(lines):
        if not {"package", "description-md5", description} <= stanza.keys():
            continue
        short, *body = stanza[description]
        # A line with only a full stop separates paragraphs.
        text = [line for line in map(str.strip, body) if line != "."]
        yield Entry(stanza["package"][0], stanza["description-md5"][0], short, " ".join(text))


def _stanzas(lines: Iterable[str]) -> Iterator[dict[str, list[str]]]:
    """Yields field name in lower case -> lines of its value."""
    stanza: dict[str, list[str]] = {}
    value: list[str] = []
    for line in lines:
        if not line.strip():
            if stanza:
                yield stanza
            stanza, value = {}, []
        elif line[0] in " \t":
            value.append(line.rstrip("\n"))
        else:
            name, _, first = line.partition(":")
            value = stanza.setdefault(name.lower(), [])
            value[:] = [first.strip()]
    if stanza:
        yield stanza


_WORD = re.compile(r"\w+")
# Control characters except white space; and invisible characters that are no part of words in the archive's
# languages: soft hyphen, zero-width space, byte order and direction marks.
_CONTROL = (chr(code) for code in (*range(32), *range(127, 160)) if not chr(code).isspace())
_REMOVED = dict.fromkeys(map(ord, (*_CONTROL, *"\u00ad\u200b\u2060\ufeff\u200e\u200f")))


def clean(rows: Iterable[Row], options: CleaningOptions) -> tuple[list[Row], Dropped]:
    """Drops empty, short and untranslated texts, and repeated descriptions.

    Args:
        rows: each with English.

    Returns:
        The rows with at least two languages, in order; and the texts left out, reason -> language -> count.
        Of descriptions with the same English long text, the one with the most languages stays, or the first.
    """
    reasons = (NO_TEXT, TOO_SHORT, UNTRANSLATED, NO_TRANSLATION, DUPLICATE)
    dropped: Dropped = {reason: Counter() for reason in reasons}
    kept: dict[str, Row] = {}
    for row in rows:
        text = {
            lang: DescriptionTexts(tidy(short), _cut(tidy(long), options.max_characters))
            for lang, (short, long) in row.text.items()
        }
        english = text["en"]
        words = set(_WORD.findall(english.long.casefold()))
        for lang in list(text):
            reason = _fault(lang, text[lang], english, words, options)
            if reason:
                dropped[reason][lang] += 1
                del text[lang]
        if "en" not in text or len(text) < 2:
            dropped[NO_TRANSLATION].update(text.keys())
            continue
        key = english.long.casefold()
        other = kept.get(key)
        if other is not None and len(text) <= len(other.text):
            dropped[DUPLICATE].update(text.keys())
            continue
        if other is not None:
            dropped[DUPLICATE].update(other.text.keys())
            del kept[key]
        kept[key] = row._replace(text=text)
    return list(kept.values()), dropped


def tidy(text: str) -> str:
    """The text without control and invisible characters, and with white space collapsed."""
    return " ".join(text.translate(_REMOVED).split())


def _cut(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    # Japanese has no spaces.
    return (text[: limit + 1].rpartition(" ")[0] or text[:limit]).rstrip()


def _fault(
    lang: str,
    texts: DescriptionTexts,
    english: DescriptionTexts,
    english_words: set[str],
    options: CleaningOptions,
) -> str | None:
    if not (texts.short and texts.long):
        return NO_TEXT
    if len(texts.long) < options.min_characters:
        return TOO_SHORT
    if lang == "en":
        return None
    words = _WORD.findall(texts.long.casefold())
    copied = sum(word in english_words for word in words) > options.max_english * len(words)
    return UNTRANSLATED if copied or texts.short.casefold() == english.short.casefold() else None
