"""A small parallel collection, with a config of its own."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from helpers.beir import write_folder

LANGUAGES = ("de", "fi", "ja")
_WORDS = {
    "de": ["Haus", "Suche", "Sprache", "Wort", "See", "Norden", "Spiel"],
    "fi": ["talo", "haku", "kieli", "sana", "järvi", "pohjoinen", "peli"],
    "ja": ["家", "検索", "言語", "単語", "湖", "北", "遊び"],
}


def parallel_folder(directory: Path, texts: int = 14) -> str:
    """Documents `de:0`, `fi:0`, ... of the same text; each is relevant to every version of its query."""
    docs: list[dict[str, str]] = []
    queries: list[dict[str, str]] = []
    qrels: dict[str, dict[str, int]] = {}
    for number in range(texts):
        for lang in LANGUAGES:
            words = _WORDS[lang]
            chosen = [words[(number * step + step) % len(words)] for step in range(1, 4 + number % 4)]
            docs.append({"_id": f"{lang}:{number}", "text": " ".join([*chosen, str(number)]), "lang": lang})
            queries.append({"_id": f"{lang}:q{number}", "text": " ".join(chosen[:2]), "lang": lang})
            qrels[f"{lang}:q{number}"] = {f"{other}:{number}": 1 for other in LANGUAGES}
    return write_folder(directory, docs, queries, qrels)


def write_config(path: Path, collections: Any, **changes: Any) -> Path:
    """A config on these collections."""
    config = {
        "title": "A small benchmark",
        "setting": "mlir",
        "collections": collections,
        "measures": ["ndcg@5", "recall@10"],
        "depth": 20,
        "fairness": {"cutoff": 5, "target": "relevant"},
        "geometry": {"texts": 10, "role": "documents", "seed": 0},
        **changes,
    }
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


def results(output: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((output / "results.json").read_text(encoding="utf-8"))
    return found


def hits(run: Path) -> dict[str, list[str]]:
    """Query id -> its docids."""
    import gzip

    found: dict[str, list[str]] = {}
    with gzip.open(run, "rt", encoding="utf-8") as lines:
        for line in lines:
            query_id, _, docid, *_ = line.split()
            found.setdefault(query_id, []).append(docid)
    return found


def stamps(directory: Path, parts: Sequence[str]) -> dict[str, int]:
    """When each file below these parts was written."""
    return {
        str(file): file.stat().st_mtime_ns
        for part in parts
        for file in (directory / part).rglob("*")
        if file.is_file() and file.name != "write.lock"
    }
