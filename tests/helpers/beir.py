"""Writes small collections as BEIR folders."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def write_folder(
    directory: Path,
    docs: Sequence[Mapping[str, Any]],
    queries: Sequence[Mapping[str, Any]] = (),
    qrels: Mapping[str, Mapping[str, int]] | None = None,
) -> str:
    """Writes `corpus.jsonl`, `queries.jsonl` and `qrels/test.tsv`; returns the collection's `path:` spec."""
    directory.mkdir(parents=True, exist_ok=True)
    _jsonl(directory / "corpus.jsonl", docs)
    if queries:
        _jsonl(directory / "queries.jsonl", queries)
    if qrels is not None:
        (directory / "qrels").mkdir(exist_ok=True)
        lines = ["query-id\tcorpus-id\tscore"]
        lines += [
            f"{query}\t{doc}\t{grade}" for query, judged in qrels.items() for doc, grade in judged.items()
        ]
        (directory / "qrels" / "test.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return f"path:{directory}"


def _jsonl(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def documents(count: int, languages: Sequence[str] = ("de", "fi", "ja")) -> list[dict[str, str]]:
    """Documents of different length in several languages, in corpus order."""
    words = [
        "Haus",
        "talo",
        "家",
        "Suche",
        "haku",
        "検索",
        "Sprache",
        "kieli",
        "言語",
        "Wort",
        "sana",
        "単語",
    ]
    return [
        {
            "_id": f"d{number}",
            "title": f"Titel {number}" if number % 3 else "",
            "text": " ".join(words[(number * step) % len(words)] for step in range(1, 2 + number % 23)),
            "lang": languages[number % len(languages)],
        }
        for number in range(count)
    ]
