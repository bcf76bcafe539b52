"""Writes a tiny Debian archive, which the real apt reads through a file: source."""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple


class Package(NamedTuple):
    """A package with its description: the archive's language code -> (short text, lines of the long text)."""

    name: str
    text: Mapping[str, tuple[str, Sequence[str]]]

    @property
    def md5(self) -> str:
        """As the archive has it: of the English description as it stands in the field."""
        return hashlib.md5(f"{_field(*self.text['en'])}\n".encode()).hexdigest()


def stanza(package: Package, code: str) -> str:
    return (
        f"Package: {package.name}\nDescription-md5: {package.md5}\n"
        f"Description-{code}: {_field(*package.text[code])}\n\n"
    )


def write_archive(directory: Path, packages: Sequence[Package], *, suite: str = "tiny") -> str:
    """Writes `dists/SUITE` with a Translation index for each language; returns the line for sources.list."""
    release = directory / "dists" / suite
    indexes = release / "main" / "i18n"
    indexes.mkdir(parents=True)
    codes = dict.fromkeys(code for package in packages for code in package.text)
    for code in codes:
        text = "".join(stanza(package, code) for package in packages if code in package.text)
        (indexes / f"Translation-{code}").write_text(text, encoding="utf-8")
    lines = [
        f"Origin: Tiny\nSuite: {suite}\nVersion: 1.2\nDate: Sat, 01 Aug 2026 00:00:00 UTC",
        "Architectures: all amd64 arm64\nComponents: main\nSHA256:",
    ]
    for path in sorted(indexes.iterdir()):
        content = path.read_bytes()
        lines.append(f" {hashlib.sha256(content).hexdigest()} {len(content)} main/i18n/{path.name}")
    (release / "Release").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return f"deb [trusted=yes] file:{directory} {suite} main"


def _field(short: str, lines: Sequence[str]) -> str:
    return "\n".join([short, *(f" {line or '.'}" for line in lines)])
