"""Prompts of queries and documents: from a checkpoint's files, else as its family publishes them."""

import json
import logging
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from mimo_plugin.encoder import packaged
from mimo_plugin.encoder.checkpoint import files_root

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_log = logging.getLogger(__name__)
# `encode_query` and `encode_document` of sentence-transformers use the first of these that exists.
_NAMES = {"query": ("query",), "document": ("document", "passage", "corpus")}

_RETRIEVE = "Given a web search query, retrieve relevant passages that answer the query"
_INSTRUCT = f"Instruct: {_RETRIEVE}\nQuery: "
_REPRESENT = "Represent this sentence for searching relevant passages: "


class Prompts(NamedTuple):
    """Texts put before each query and each document, exactly; "" for nothing."""

    query: str
    document: str


class Family(NamedTuple):
    """Models with the same prompts.

    Attributes:
        models: regular expression of their published names, in any case.
        prompts: as published.
    """

    name: str
    models: str
    prompts: Prompts


# From the models' cards. Families without prompts are listed, too, so that they cause no warning.
FAMILIES = (
    Family("E5 instruct", r"multilingual-e5-large-instruct|e5-mistral-7b-instruct", Prompts(_INSTRUCT, "")),
    Family(
        "E5",
        r"(multilingual-)?e5-(small|base|large)(-v2|-unsupervised)?",
        Prompts("query: ", "passage: "),
    ),
    Family("BGE", r"bge-(small|base|large)-en(-v1\.5)?", Prompts(_REPRESENT, "")),
    Family(
        "BGE", r"bge-(small|base|large)-zh(-v1\.5)?", Prompts("为这个句子生成表示以用于检索相关文章：", "")
    ),
    Family("BGE", r"bge-multilingual-gemma2", Prompts(f"<instruct>{_RETRIEVE}.\n<query>", "")),
    Family("BGE", r"bge-m3(-unsupervised|-retromae)?|bge-large-zh-noinstruct", Prompts("", "")),
    Family("GTE instruct", r"gte-qwen[12][.\d]*-[.\d]+b-instruct", Prompts(_INSTRUCT, "")),
    Family(
        "GTE",
        r"gte-(small|base|large)(-zh|-en-v1\.5)?|gte-(multilingual|modernbert)-base",
        Prompts("", ""),
    ),
    Family("Arctic 2", r"snowflake-arctic-embed-[ml]-v2\.0", Prompts("query: ", "")),
    Family("Arctic", r"snowflake-arctic-embed-(xs|s|m|l|m-long|m-v1\.5)", Prompts(_REPRESENT, "")),
    # Without a space between "Query:" and the query.
    Family("Qwen3-Embedding", r"qwen3-embedding-[.\d]+b", Prompts(f"Instruct: {_RETRIEVE}\nQuery:", "")),
    Family(
        "EmbeddingGemma",
        r"embeddinggemma-300m(-qat-q[48]_0-unquantized)?",
        Prompts("task: search result | query: ", "title: none | text: "),
    ),
    Family("Granite", r"granite-embedding-[\w.-]+", Prompts("", "")),
    Family(
        "sentence-transformers",
        r"(all|paraphrase|multi-qa)-[\w.-]*(minilm|mpnet|roberta|distilbert|albert)[\w.-]*|labse"
        r"|distiluse-base-multilingual-cased(-v[12])?",
        Prompts("", ""),
    ),
)


def own_prompts(prompts: Mapping[str, str], default: str | None) -> Prompts:
    """The prompts that `encode_query` and `encode_document` of sentence-transformers use.

    The default prompt is only used if the model has no prompt for the task, not even an empty one.

    Args:
        prompts: the model's, by name.
        default: name of the default prompt.
    """

    def of(role: str) -> str:
        there = (prompts[name] for name in _NAMES[role] if name in prompts)
        return str(next(there, prompts.get(default or "")) or "")

    return Prompts(of("query"), of("document"))


def former_query_prompt(model: "SentenceTransformer") -> str:
    """The query prompt of old indexes, whose manifests do not say it: the default replaced an empty one."""
    return str(model.prompts.get("query") or model.prompts.get(model.default_prompt_name or "") or "")


def resolve(
    prompts: Mapping[str, str],
    default: str | None,
    checkpoint: str,
    path: str,
    *,
    query: str | None,
    document: str | None,
    known: bool,
) -> Prompts:
    """The prompts to use, with a warning if they do not come from the checkpoint's files or from the user.

    Args:
        prompts, default: see `own_prompts`.
        checkpoint: as given.
        path: the same, resolved.
        query, document: replace the checkpoint's own.
        known: if the files name no prompts, those of a known family are used.
    """

    def with_given(found: Prompts) -> Prompts:
        return Prompts(
            found.query if query is None else query, found.document if document is None else document
        )

    own = own_prompts(prompts, default)
    asked = with_given(own)
    if not known or (query is not None and document is not None):
        return asked
    # sentence-transformers writes two empty prompts into every checkpoint that has none.
    silent = not (own.query or own.document or default)
    found = family(checkpoint, path) if silent and not _ours(path) else None
    if found is not None:
        filled = with_given(found.prompts)
        if filled != asked:
            _log.warning(
                f"{checkpoint}: its files name no prompts, those of {found.name} are used: {filled.query!r} "
                f"before queries, {filled.document!r} before documents (--no-known-prompts leaves them out)"
            )
        return filled
    unused = next((name for name in _NAMES["document"] if prompts.get(name)), None)
    if document is None and not own.document and unused is not None:
        _log.warning(
            f"{checkpoint}: its files have a prompt {unused!r} and none for 'document': nothing is put "
            "before documents, as in encode_document of sentence-transformers; to use it, give "
            f"--document-prompt {prompts[unused]!r}"
        )
    elif silent and query is None and document is None and not _ours(path):
        _log.warning(
            f"{checkpoint}: neither its files nor the known families name prompts: nothing is put before "
            "queries and documents; if its makers say otherwise, give --query-prompt and --document-prompt"
        )
    return asked


def family(checkpoint: str, path: str) -> Family | None:
    """A checkpoint's family, by its name, its directory's name or the name in its config."""
    for name in _names(checkpoint, path):
        for found in FAMILIES:
            if re.search(rf"(^|[/_]|--)({found.models})$", name, re.IGNORECASE):
                return found
    return None


def _names(checkpoint: str, path: str) -> Iterator[str]:
    yield checkpoint.removeprefix(packaged.PREFIX).rstrip("/")
    if Path(path).is_dir():
        # In the hub's cache the name is two levels up.
        yield re.sub(r"/snapshots/[^/]+$", "", str(Path(path).resolve()))
    try:
        config = json.loads(_read(path, "config.json"))
    except ValueError:
        return
    if isinstance(config, dict):
        yield str(config.get("_name_or_path", "")).rstrip("/")


def _ours(path: str) -> bool:
    """Whether `mimo train` wrote a checkpoint: then its files are complete, also without prompts."""
    place = Path(path)
    in_training = place.parent.name == "checkpoints" and (place.parent.parent / "recipe.yaml").is_file()
    return in_training or re.search(r"^- mimo$", _read(path, "README.md"), re.MULTILINE) is not None


def _read(path: str, name: str) -> str:
    """The text of a checkpoint's file; "" if it does not exist."""
    root = files_root(path, fetch=False)
    try:
        return "" if root is None else (root / name).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
