"""A smaller student: some layers of a checkpoint, and the tokens of its vocabulary that texts use."""

import hashlib
import json
import math
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice, pairwise
from typing import TYPE_CHECKING, Any, Literal

from mimo_plugin.core.environment import bar
from mimo_plugin.core.errors import ModelError, UsageError

if TYPE_CHECKING:
    import numpy as np
    from sentence_transformers import SentenceTransformer
    from torch import nn
    from transformers import PreTrainedModel

Vocabulary = int | Literal["used"]
# Key of the record in a checkpoint's config.json.
RECORD = "mimo_cut"
# A token that occurs less often in the training texts is hardly learned.
_LEAST = 2
# Texts that are tokenized at a time, and texts that the result is tried on.
_BATCH, _SAMPLES = 2048, 16
# Distinct texts that are remembered, in some hundred MB at most. An anchor comes with all its translations.
_REMEMBERED = 4_000_000
# Special tokens below this id keep it: RoBERTa's positions and classes of tokenizers count on it.
_FRONT = 256
# Largest difference between vectors before and after: above rounding, below another token's vector.
_TOLERANCE = 1e-3


def layers_kept(layers: int, keep: int) -> list[int]:
    """Numbers of `keep` layers, spread evenly from the first to the last; a single one is the first.

    >>> layers_kept(12, 4)
    [0, 4, 7, 11]
    """
    return [round(place * (layers - 1) / (keep - 1)) for place in range(keep)] if keep > 1 else [0]


def cut_record(model: "SentenceTransformer") -> dict[str, Any]:
    """What a model was cut from; empty for a model that was not cut.

    Returns:
        `layers`, the numbers that the kept ones had, of `of_layers`; `tokens`, the number of the kept ones,
        of `of_tokens`, and the `vocabulary` that was asked for.
    """
    return dict(getattr(model.config, RECORD, None) or {})


@dataclass(frozen=True)
class Cut:
    """What a checkpoint is to lose.

    Attributes:
        layers: number of layers to keep; None keeps all.
        vocabulary: number of tokens to keep, "used" for those in the training texts; None keeps all.
    """

    layers: int | None
    vocabulary: Vocabulary | None

    @classmethod
    def of(
        cls, model: "SentenceTransformer", name: str, layers: int | None, vocabulary: Vocabulary | None
    ) -> "Cut | None":
        """What is left to cut; None if the model is as small, or its vocabulary was cut to what is used.

        Args:
            name: the checkpoint's, in messages.

        Raises:
            UsageError: the model has fewer layers.
            ModelError: a model of this kind cannot be cut.
        """
        if layers is None and vocabulary is None:
            return None
        there = int(model.config.num_hidden_layers)
        if layers is not None and layers > there:
            raise UsageError(f"--student-layers {layers}: {name} has {there}, expected at most as many")
        if vocabulary == "used":
            small = cut_record(model).get("vocabulary") is not None
        else:
            small = vocabulary is None or len(model.tokenizer) <= vocabulary
        cut = cls(None if layers == there else layers, None if small else vocabulary)
        if cut == cls(None, None):
            return None
        try:
            _check(model.transformers_model, layers_kept(there, cut.layers) if cut.layers else ())
            if not small:
                _Pieces(model.tokenizer)
        except ModelError as error:
            raise ModelError(f"{name} cannot be cut: {error}") from error
        return cut

    def apply(
        self,
        model: "SentenceTransformer",
        texts: Iterable[str],
        *,
        total: int | None = None,
        progress: bool | None = None,
    ) -> None:
        """Cuts the model in place. Texts of kept tokens keep their tokens, and with all layers their vectors.

        Args:
            texts: read once, for a vocabulary only. A text that comes again does not count again, unless
                millions of others came before.
            total: number of texts.
            progress: see `environment.bar`.

        Raises:
            UsageError: the vocabulary is too small for what is always kept.
            ModelError: the cut model gives other vectors, or its tokenizer changes when it is loaded.
        """
        record = cut_record(model)
        if self.vocabulary is not None:
            record = {"of_tokens": len(model.tokenizer), **record}
            with bar(total=total, what="vocabulary", unit="texts", enabled=progress) as counter:
                tokens = _cut_vocabulary(model, self.vocabulary, _batches(texts, counter))
            record |= {"tokens": tokens, "vocabulary": self.vocabulary}
        if self.layers is not None:
            parent, name, layers = _stack(model.transformers_model)
            kept = layers_kept(len(layers), self.layers)
            for key, value in _layer_settings(model.config, kept).items():
                setattr(model.config, key, value)
            setattr(parent, name, type(layers)(layers[number] for number in kept))
            record = {"of_layers": len(layers), "layers": list(range(len(layers))), **record}
            record["layers"] = [record["layers"][number] for number in kept]
        setattr(model.config, RECORD, record)


def _stack(base: "PreTrainedModel") -> tuple["nn.Module", str, "nn.ModuleList"]:
    """A model's layers, with the module that has them and their name there."""
    from torch.nn import ModuleList

    found = {
        path: inner
        for path, inner in base.named_modules()
        if isinstance(inner, ModuleList)
        and len(inner) == base.config.num_hidden_layers
        # A layer may have lists of its own.
        and not any(step.isdigit() for step in path.split("."))
    }
    if len(found) != 1:
        raise ModelError(f"a {base.config.model_type} model does not have its layers in one list")
    ((path, layers),) = found.items()
    parent, _, name = path.rpartition(".")
    return base.get_submodule(parent), name, layers


def _layer_settings(config: Any, kept: Sequence[int]) -> dict[str, Any]:
    """Settings of a config that has the kept layers only."""
    by_layer = {
        key: [value[number] for number in kept]
        for key, value in config.to_dict().items()
        if key.endswith("layer_types") and value is not None
    }
    return {"num_hidden_layers": len(kept), **by_layer}


def _check(base: "PreTrainedModel", kept: Sequence[int]) -> None:
    """Raises a ModelError unless a config can say all about the model with fewer layers and other tokens.

    Args:
        kept: numbers of the layers; none if all stay.
    """
    import torch
    from torch.nn import ModuleList

    try:
        embeddings = base.get_input_embeddings().weight
    except NotImplementedError:
        raise ModelError(f"a {base.config.model_type} model has no embeddings of tokens") from None
    layers = _stack(base)[2] if kept else ModuleList()
    changes = {**(_layer_settings(base.config, kept) if kept else {}), "vocab_size": len(embeddings) + 1}
    with torch.device("meta"):
        twin = type(base)(type(base.config).from_dict({**base.config.to_dict(), **changes}))
    for number, other in zip(kept, _stack(twin)[2] if kept else (), strict=True):
        if unlike := _nature(layers[number]).items() ^ _nature(other).items():
            raise ModelError(
                f"its config cannot say that layer {number} stays as it is ({min(unlike)[0]}); expected "
                "layers that are alike, or a config with layer_types"
            )
    inside = {id(weight) for weight in (*layers.parameters(), embeddings)}
    sizes = {name: weight.shape for name, weight in twin.named_parameters()}
    for name, weight in base.named_parameters():
        if id(weight) not in inside and sizes.get(name) != weight.shape:
            raise ModelError(f"its weights {name} depend on the number of layers or tokens, too")


def _nature(layer: "nn.Module") -> dict[str, Any]:
    """What a layer is besides its place and weights: classes, shapes and settings of its modules."""
    found: dict[str, Any] = {name: tuple(weight.shape) for name, weight in layer.named_parameters()}
    for path, module in layer.named_modules():
        found[f"{path} is"] = type(module).__name__
        for name, value in vars(module).items():
            if isinstance(value, int | float | str) and not name.startswith(("_", "layer_i", "training")):
                found[f"{path}.{name}".lstrip(".")] = value
    return found


def _batches(texts: Iterable[str], counter: Any) -> Iterator[list[str]]:
    """Texts without those that came before."""
    left, seen = iter(texts), set[bytes]()
    while batch := list(islice(left, _BATCH)):
        found = {hashlib.blake2b(text.encode(), digest_size=8).digest(): text for text in batch}
        yield [text for key, text in found.items() if key not in seen]
        if len(seen) < _REMEMBERED:
            seen |= found.keys()
        counter.update(len(batch))


class _Pieces:
    """The vocabulary of a fast tokenizer, with how its model puts texts together from it.

    Attributes:
        ids: token -> id, added tokens included.
        special: ids that are kept whatever the texts are.
    """

    def __init__(self, tokenizer: Any) -> None:
        from tokenizers import Tokenizer

        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise ModelError(f"its tokenizer ({type(tokenizer).__name__}) has no fast form, tokenizer.json")
        self._state = json.loads(backend.to_str()) | {"truncation": None, "padding": None}
        self._model = self._state["model"]
        self._kind = self._model["type"]
        if self._kind not in _ALWAYS:
            raise ModelError(f"its tokenizer is a {self._kind}, expected one of {', '.join(_ALWAYS)}")
        self._backend = Tokenizer.from_str(json.dumps(self._state))
        self.ids: dict[str, int] = self._backend.get_vocab(with_added_tokens=True)
        self.special = {*tokenizer.all_special_ids, *(token["id"] for token in self._state["added_tokens"])}
        front = max((number for number in self.special if number < _FRONT), default=-1)
        self.special |= set(range(front + 1)) & set(self.ids.values())

    def count(self, batches: Iterable[list[str]]) -> tuple["np.ndarray[Any, Any]", list[str]]:
        """How often each token occurs, and some of the texts."""
        import numpy as np

        counts, samples = np.zeros(max(self.ids.values()) + 1, np.int64), list[str]()
        for batch in batches:
            samples += batch[: _SAMPLES - len(samples)]
            encoded = self._backend.encode_batch_fast(batch, add_special_tokens=False)
            found = np.fromiter(chain.from_iterable(one.ids for one in encoded), np.int64)
            counts += np.bincount(found, minlength=len(counts))
        return counts, samples

    def read(self, text: str) -> set[int]:
        """The tokens of a text, without special ones."""
        return set(self._backend.encode(text, add_special_tokens=False).ids)

    def keep(self, counts: "np.ndarray[Any, Any]", more: Iterable[int], most: Vocabulary) -> dict[int, int]:
        """Chooses tokens: special ones, single characters and bytes, and the most frequent others.

        Args:
            more: further ids to keep.
            most: number of tokens; "used" keeps all that occur twice.

        Returns:
            Old ids, in order, and new ones.
        """
        pieces = {number: piece for piece, number in self.ids.items()}
        parts = _parts(self._model) if self._kind == "BPE" else lambda piece: [piece]

        def needed(number: int) -> set[int]:
            return {self.ids[part] for part in parts(pieces[number])}

        kept = self.special | {self.ids[piece] for piece in _ALWAYS[self._kind](self._model)}
        kept = kept.union(*(needed(number) for number in more if number in pieces))
        if most != "used" and len(kept) > most:
            raise UsageError(
                f"--student-vocabulary {most}: special tokens, single characters and what else is always "
                f"kept are {len(kept)} tokens, expected at least as many"
            )
        used = [number for number in pieces if counts[number] >= _LEAST]
        for number in sorted(used, key=lambda number: (-counts[number], number)):
            added = needed(number) - kept
            if most == "used" or len(kept) + len(added) <= most:
                kept |= added
        return {old: new for new, old in enumerate(sorted(kept))}

    def cut(self, ids: dict[int, int]) -> Any:
        """The tokenizer with these tokens. Raises a ModelError if it would give them other ids.

        Args:
            ids: old id -> new id.
        """
        from tokenizers import Tokenizer

        expected = {piece: ids[number] for piece, number in self.ids.items() if number in ids}
        model, vocabulary = dict(self._model), self._model["vocab"]
        if self._kind == "Unigram":
            model["vocab"] = [entry for number, entry in enumerate(vocabulary) if number in ids]
            model["unk_id"] = ids.get(self._model["unk_id"])
        else:
            model["vocab"] = {piece: expected[piece] for piece in vocabulary if piece in expected}
        if self._kind == "BPE":
            result = _merged(model)
            model["merges"] = [
                pair for pair in model["merges"] if {*pair, result(pair)} <= model["vocab"].keys()
            ]
        added = [{**token, "id": ids[token["id"]]} for token in self._state["added_tokens"]]
        template = _renumbered(self._state["post_processor"], ids)
        state = {**self._state, "model": model, "added_tokens": added, "post_processor": template}
        tokenizer = Tokenizer.from_str(json.dumps(state))
        if tokenizer.get_vocab(with_added_tokens=True) != expected:
            raise ModelError("its tokenizer does not keep the order of its tokens without some of them")
        return tokenizer


def _renumbered(processor: Any, ids: dict[int, int]) -> Any:
    """A tokenizer's post-processor with the new ids of special tokens."""
    changed = dict(processor or {})
    for name in changed.keys() & {"sep", "cls"}:
        token, number = changed[name]
        changed[name] = [token, ids[number]]
    if "processors" in changed:
        changed["processors"] = [_renumbered(inner, ids) for inner in changed["processors"]]
    if "special_tokens" in changed:
        changed["special_tokens"] = {
            name: {**token, "ids": [ids[number] for number in token["ids"]]}
            for name, token in changed["special_tokens"].items()
        }
    return changed or None


def _unigram_always(model: Any) -> Iterator[str]:
    """Characters and bytes, and what holds a character that has no token of its own."""
    characters = {piece for piece, _ in model["vocab"] if len(piece) == 1}
    for piece, _ in model["vocab"]:
        if len(piece) == 1 or _BYTE.fullmatch(piece) or not characters.issuperset(piece):
            yield piece
    # An unknown character costs as much as the worst token, and some more.
    yield min(model["vocab"], key=lambda entry: entry[1])[0]


_BYTE = re.compile(r"<0x[0-9A-F]{2}>")


def _wordpiece_always(model: Any) -> Iterator[str]:
    """Characters in their forms at a word's start and within, and what cannot be put together of them."""
    prefix = model["continuing_subword_prefix"]
    for piece in model["vocab"]:
        body = piece.removeprefix(prefix)
        within = [prefix + character for character in body]
        start = within[:1] if piece != body else [body[:1]]
        if len(body) < 2 or not {*start, *within[1:]} <= model["vocab"].keys():
            yield piece


def _bpe_always(model: Any) -> Iterator[str]:
    """What no merge makes: characters or bytes."""
    made = set(map(_merged(model), model["merges"]))
    return (piece for piece in model["vocab"] if piece not in made)


_ALWAYS: dict[str, Callable[[Any], Iterator[str]]] = {
    "Unigram": _unigram_always,
    "BPE": _bpe_always,
    "WordPiece": _wordpiece_always,
}


def _merged(model: Any) -> Callable[[Sequence[str]], str]:
    """Two tokens -> what merging them gives."""
    prefix = model["continuing_subword_prefix"] or ""
    return lambda pair: pair[0] + pair[1].removeprefix(prefix)


def _parts(model: Any) -> Callable[[str], list[str]]:
    """Token of a BPE -> itself, and the tokens that it is merged of, in all steps.

    Within a text a token is merged in the same steps as alone, so these are all that it needs.
    """
    ranks = {tuple(pair): rank for rank, pair in enumerate(model["merges"])}
    prefix, suffix = (model[name] or "" for name in ("continuing_subword_prefix", "end_of_word_suffix"))
    result = _merged(model)

    def parts(piece: str) -> list[str]:
        body = piece.removeprefix(prefix)
        inner = prefix if piece != body else ""
        body = body.removesuffix(suffix)
        symbols = [(prefix if place else inner) + character for place, character in enumerate(body)]
        if symbols and piece.endswith(suffix):
            symbols[-1] += suffix
        found = [piece]
        while len(symbols) > 1:
            pairs = list(pairwise(symbols))
            place = min(range(len(pairs)), key=lambda place: ranks.get(pairs[place], math.inf))
            if pairs[place] not in ranks:
                # Not merged at all: taken as a whole, or never found in a text.
                return [piece]
            symbols[place : place + 2] = [result(pairs[place])]
            found.append(symbols[place])
        return found

    return parts


def _cut_vocabulary(model: "SentenceTransformer", most: Vocabulary, batches: Iterable[list[str]]) -> int:
    """Cuts tokenizer, embeddings and the config's ids; returns the number of tokens."""
    import numpy as np

    tokenizer, base = model.tokenizer, model.transformers_model
    pieces = _Pieces(tokenizer)
    counts, samples = pieces.count(batches)
    special = {key: value for key, value in base.config.to_dict().items() if key.endswith("_token_id")}
    lists = (value if isinstance(value, list) else [value] for value in special.values())
    more = {*chain.from_iterable(lists)}.union(*map(pieces.read, model.prompts.values()))
    ids = pieces.keep(counts, more, most)
    words = chain(samples, *(text.split() for text in samples))
    whole = list(islice((text for text in words if pieces.read(text) <= ids.keys()), _SAMPLES))

    def vectors() -> Any:
        return model.encode(whole, prompt="", show_progress_bar=False)

    before = vectors()
    tokenizer._tokenizer = pieces.cut(ids)
    _check_saved(tokenizer, samples)
    _cut_embeddings(base, ids)
    for key, value in special.items():
        new = [ids.get(number) for number in value] if isinstance(value, list) else ids.get(value)
        setattr(base.config, key, new)
    if whole and not np.abs(vectors() - before).max() <= _TOLERANCE * np.abs(before).max():
        raise ModelError(
            f"the vocabulary of this {base.config.model_type} model cannot be cut: texts of kept tokens get "
            "other vectors"
        )
    return len(ids)


def _check_saved(tokenizer: Any, texts: Sequence[str]) -> None:
    """Raises a ModelError if a cut tokenizer gives other ids when it is loaded, as classes with fixed ids."""
    # Lower-casing by sentence-transformers is not saved with the tokenizer.
    texts = ["", "\U0010ffff", *(text.lower() for text in texts)]
    with tempfile.TemporaryDirectory(prefix="mimo-cut-") as directory:
        tokenizer.save_pretrained(directory)
        loaded = type(tokenizer).from_pretrained(directory)
    for one in (loaded, tokenizer):
        one.backend_tokenizer.no_truncation()
    if loaded(texts)["input_ids"] != tokenizer(texts)["input_ids"]:
        raise ModelError(
            f"a {type(tokenizer).__name__} cannot be cut: with fewer tokens it gives other ids when it is "
            "loaded; expected one that is all in its tokenizer.json"
        )


def _cut_embeddings(base: "PreTrainedModel", ids: dict[int, int]) -> None:
    import torch

    embeddings = base.get_input_embeddings()
    padding = getattr(embeddings, "padding_idx", None)
    with torch.no_grad():
        # The rows of kept tokens move to the front, and the others behind them are dropped.
        embeddings.weight[: len(ids)] = embeddings.weight[list(ids)]
    base.resize_token_embeddings(len(ids), mean_resizing=False)
    if padding is not None:
        base.get_input_embeddings().padding_idx = ids.get(padding)
