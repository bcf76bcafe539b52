"""Debian's package descriptions and their translations, fetched, parsed and cleaned."""

import os
import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from mimo_plugin.core.environment import bar
from mimo_plugin.core.errors import EnvironmentProblem
from mimo_plugin.data.debian.table import NO_TEXT, NO_TRANSLATION, Row, Texts, language_code

_INSTEAD = (
    "give a parsed table with --from-table FILE.jsonl.gz (the table.jsonl.gz that this command writes on a "
    "Debian or Ubuntu machine)"
)
# What of the machine's settings is taken over: how to reach the archive, and where its keys and sources are.
# Its choice of languages is not; nor is anything that would have unsigned or weakly signed indexes accepted.
_TAKEN_OVER = re.compile(
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
_FIELDS = ("FILENAME", "LANGUAGE", "SITE", "RELEASE", "COMPONENT")
_RELEASE_FIELD = re.compile(r"(Date|Version): *(.*)")
_REASON = re.compile(r"[EW]: (.*)")


class _Target(NamedTuple):
    """An index that apt knows; see `_FIELDS`."""

    path: str
    language: str
    site: str
    suite: str
    component: str


@dataclass(frozen=True)
class Index:
    """Attributes:
    path: of a plain `Translation-LANG`.
    language: the archive's code.
    """

    path: Path
    language: str


@dataclass(frozen=True)
class Release:
    """A suite of an archive.

    Attributes:
        date: of its Release file; "" where that has none.
        version: such as 12.15; "" where it has none.
    """

    site: str
    suite: str
    components: tuple[str, ...]
    date: str
    version: str


def check_apt() -> None:
    """Raises an EnvironmentProblem where there is no apt."""
    missing = [name for name in ("apt-get", "apt-config") if shutil.which(name) is None]
    if missing:
        raise EnvironmentProblem(
            f"{' and '.join(missing)} not found: Debian's descriptions are fetched by the package manager of "
            f"a Debian or Ubuntu machine. Run the command on one, or {_INSTEAD}"
        )


def fetch(
    directory: Path, languages: Sequence[str], sources: Sequence[str], *, progress: bool | None
) -> tuple[list[Index], list[Release]]:
    """Fetches the translation indexes of all package sources.

    Args:
        directory: an empty one.
        languages: the archive's codes.
        sources: lines as in apt's sources.list, in place of the machine's own package sources.

    Raises:
        EnvironmentProblem: there is no apt, it failed, or the sources have no translations.
    """
    check_apt()
    environment = _configure(directory, languages, sources)
    _update(environment, progress=progress)
    columns = "\t".join(f"$({field})" for field in _FIELDS)
    listed = _run(["apt-get", "indextargets", "--format", columns, "Created-By: Translations"], environment)
    targets = [_Target(*line.split("\t")) for line in listed.splitlines()]
    found = [target for target in targets if target.language in languages and Path(target.path).is_file()]
    if not found:
        named = "; ".join(sources) or "those of this machine (apt-cache policy shows them)"
        raise EnvironmentProblem(
            f"no translations of package descriptions in the package sources, {named}: name an archive that "
            f"has them with --source, or {_INSTEAD}"
        )
    return [Index(Path(target.path), target.language) for target in found], _releases(found)


def _configure(directory: Path, languages: Sequence[str], sources: Sequence[str]) -> dict[str, str]:
    """Writes apt's configuration and returns the environment that makes apt read nothing else."""
    for name in ("lists/partial", "state", "cache/archives/partial", "log"):
        (directory / name).mkdir(parents=True)
    (directory / "status").touch()
    plain = {**os.environ, "LC_ALL": "C.UTF-8"}
    machine = _run(["apt-config", "dump"], plain).splitlines()
    lines = [line for line in machine if _TAKEN_OVER.fullmatch(line)]
    lines.append(_SETTINGS.format(directory=directory))
    lines += [f'Acquire::Languages:: "{code}";' for code in languages]
    if sources:
        (directory / "sources.list").write_text("".join(f"{line}\n" for line in sources), encoding="utf-8")
        lines += [f'Dir::Etc::SourceList "{directory}/sources.list";', 'Dir::Etc::SourceParts "/dev/null";']
    configuration = directory / "apt.conf"
    configuration.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return {**plain, "APT_CONFIG": str(configuration)}


def _update(environment: Mapping[str, str], *, progress: bool | None) -> None:
    """Runs `apt-get update`, a step of the bar for each file.

    Raises:
        EnvironmentProblem: anything was not fetched, with apt's own reason.
    """
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
                match = _REASON.match(line)
                if match:
                    reasons.append(match[1].strip())
        except BaseException:
            process.terminate()
            raise
    # Older releases of apt only warn when a file was not fetched.
    if process.returncode or any("Failed to fetch" in reason for reason in reasons):
        reason = reasons[0] if reasons else _status(process.returncode)
        raise EnvironmentProblem(
            f"apt-get could not fetch the descriptions: {reason}; nothing was written. See to it and run the "
            f"command again, name another archive with --source, or {_INSTEAD}"
        )


def _run(command: Sequence[str], environment: Mapping[str, str]) -> str:
    done = subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace"
    )
    if done.returncode:
        reason = next(iter(_REASON.findall(done.stderr)), _status(done.returncode))
        raise EnvironmentProblem(f"{' '.join(command[:2])} failed: {reason}; mend apt, or {_INSTEAD}")
    return done.stdout


def _status(code: int) -> str:
    return f"exit status {code}" if code >= 0 else f"stopped by signal {-code}"


def _releases(targets: Sequence[_Target]) -> list[Release]:
    """The suites that the indexes are of."""
    suites: dict[tuple[str, str], list[_Target]] = {}
    for target in targets:
        suites.setdefault((target.site, target.suite), []).append(target)
    releases = []
    for (site, suite), own in suites.items():
        fields = _release_fields(Path(own[0].path))
        components = tuple(dict.fromkeys(target.component for target in own))
        releases.append(Release(site, suite, components, fields.get("Date", ""), fields.get("Version", "")))
    return releases


def _release_fields(index: Path) -> dict[str, str]:
    """What the Release file of an index says of date and version."""
    file = _release_file(index)
    lines = file.read_text(encoding="utf-8", errors="replace").splitlines() if file else []
    return {match[1]: match[2] for match in map(_RELEASE_FIELD.match, lines) if match}


def _release_file(index: Path) -> Path | None:
    """The Release file of an index: apt names both by their address, with underscores."""
    for name in ("InRelease", "Release"):
        for path in index.parent.glob(f"*_{name}"):
            if index.name.startswith(path.name.removesuffix(name)):
                return path
    return None


class Entry(NamedTuple):
    """A package's description in one language.

    Attributes:
        md5: of the English description, which all its translations carry.
        short: the first line.
        long: the other lines, joined by spaces; paragraphs too.
    """

    package: str
    md5: str
    short: str
    long: str


def entries(lines: Iterable[str], language: str) -> Iterator[Entry]:
    """Yields the descriptions of an index; a stanza without one is passed over.

    Args:
        language: the archive's code, as in the name of the field: `Description-pt_BR`.
    """
    description = f"description-{language}".lower()
    for stanza in _stanzas(lines):
        if not {"package", "description-md5", description} <= stanza.keys():
            continue
        short, *body = stanza[description]
        # A line with a full stop alone stands for an empty one, between paragraphs.
        text = [line for line in map(str.strip, body) if line != "."]
        yield Entry(stanza["package"][0], stanza["description-md5"][0], short, " ".join(text))


def _stanzas(lines: Iterable[str]) -> Iterator[dict[str, list[str]]]:
    """Yields field -> lines of its value; names are in small letters."""
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


@dataclass(frozen=True)
class Archive:
    """Attributes:
    descriptions: each with English, in the order of the English index.
    releases: where they come from.
    """

    descriptions: list[Row]
    releases: list[Release]


def read_archive(languages: Sequence[str], sources: Sequence[str], *, progress: bool | None) -> Archive:
    """Fetches the indexes of the languages and joins them by the hash of the English description.

    Args:
        languages: the archive's codes, English among them.
        sources: lines as in apt's sources.list; none are the machine's own.

    Raises:
        EnvironmentProblem: apt could not fetch them, or there are none.
    """
    with TemporaryDirectory(prefix="mimo-apt-") as directory:
        indexes, releases = fetch(Path(directory), languages, sources, progress=progress)
        return Archive(_joined(indexes), releases)


def _joined(indexes: Sequence[Index]) -> list[Row]:
    rows: dict[str, Row] = {}
    # Translations belong to an English text, so that comes first.
    for index in sorted(indexes, key=lambda one: one.language != "en"):
        lang = language_code(index.language)
        with index.path.open(encoding="utf-8", errors="replace") as lines:
            for entry in entries(lines, index.language):
                if lang == "en":
                    rows.setdefault(entry.md5, Row(entry.md5[:12], entry.package, {}))
                if entry.md5 in rows:
                    # The same description comes in several suites, and under several packages.
                    rows[entry.md5].text.setdefault(lang, Texts(entry.short, entry.long))
    if not rows:
        raise EnvironmentProblem(
            "the package sources have no English descriptions (Translation-en), expected those of a Debian "
            "or Ubuntu archive: name one with --source, or give a parsed table with --from-table"
        )
    return list(rows.values())


TOO_SHORT, UNTRANSLATED, DUPLICATE = "too short", "untranslated", "the same English long text"
_WORD = re.compile(r"\w+")
# Control characters but for white space; and what is invisible and no part of a word in the archive's
# languages: soft hyphen, zero-width space, marks of order.
_CONTROL = (chr(code) for code in (*range(32), *range(127, 160)) if not chr(code).isspace())
_REMOVED = dict.fromkeys(map(ord, (*_CONTROL, *"\u00ad\u200b\u2060\ufeff\u200e\u200f")))


@dataclass(frozen=True)
class CleaningOptions:
    """Attributes:
    min_characters: of a long text.
    max_characters: of a long text; a longer one is cut between two words.
    max_english: a translation is none when a larger share of its words occurs in the English text.
    """

    min_characters: int = 25
    max_characters: int = 1200
    max_english: float = 0.8


def clean(rows: Iterable[Row], options: CleaningOptions) -> tuple[list[Row], dict[str, Counter[str]]]:
    """Drops what is no text, no translation or no description of its own.

    Args:
        rows: each with English.

    Returns:
        The rows with two languages or more, in order; and what was left out, reason -> language -> count.
        Of descriptions with the same English long text the one in most languages stays, the first of equals.
    """
    dropped = {
        reason: Counter[str]() for reason in (NO_TEXT, TOO_SHORT, UNTRANSLATED, NO_TRANSLATION, DUPLICATE)
    }
    kept: dict[str, Row] = {}
    for row in rows:
        text = {lang: _tidied(texts, options.max_characters) for lang, texts in row.text.items()}
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
        if other is not None:
            loser = text if len(text) <= len(other.text) else other.text
            dropped[DUPLICATE].update(loser.keys())
            if loser is text:
                continue
            del kept[key]
        kept[key] = row._replace(text=text)
    return list(kept.values()), dropped


def tidy(text: str) -> str:
    """The text without control and invisible characters, and with one space for any white space."""
    return " ".join(text.translate(_REMOVED).split())


def _tidied(texts: Texts, limit: int) -> Texts:
    return Texts(tidy(texts.short), _cut(tidy(texts.long), limit))


def _cut(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    # Japanese has no spaces to cut at.
    return (text[: limit + 1].rpartition(" ")[0] or text[:limit]).rstrip()


def _fault(lang: str, texts: Texts, english: Texts, words: set[str], options: CleaningOptions) -> str | None:
    if not (texts.short and texts.long):
        return NO_TEXT
    if len(texts.long) < options.min_characters:
        return TOO_SHORT
    if lang == "en":
        return None
    own = _WORD.findall(texts.long.casefold())
    copied = sum(word in words for word in own) > options.max_english * len(own)
    return UNTRANSLATED if copied or texts.short.casefold() == english.short.casefold() else None
