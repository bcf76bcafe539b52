"""How each encoder's vectors lie, on a sample of the benchmark's texts; measured once an encoder."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mimo_plugin.errors import DataError
from mimo_plugin.files import make_parent, write_text
from mimo_plugin.reproduction.made import identity_key
from mimo_plugin.student import EncoderOptions

if TYPE_CHECKING:
    from mimo_plugin.analysis.texts import Texts
    from mimo_plugin.reproduction.parts import Benchmark
    from mimo_plugin.reproduction.systems import System


def encoder_geometry(
    benchmark: "Benchmark",
    encoders: Mapping[str, tuple["System", str]],
    output: Path,
    options: EncoderOptions,
    say: Callable[[str], Any],
    progress: bool | None,
) -> dict[str, Any] | None:
    """The geometry of all encoders as one JSON object; None where there are none, or the config wants none.

    Args:
        encoders: name -> system and fingerprint.
    """
    asked = benchmark.config.geometry
    if asked is None or not encoders:
        return None
    files = {
        name: output / "geometry" / f"{name}-{identity_key(_identity(benchmark, fingerprint, options))}.json"
        for name, (_, fingerprint) in encoders.items()
    }
    missing = [name for name, file in files.items() if not file.is_file()]
    if missing:
        try:
            texts = _texts(benchmark, progress)
        except DataError as error:
            say(f"geometry: left out, {error}")
            return None
        for name in missing:
            say(f"{name}: geometry of {len(texts.texts):,} {texts.role.value}")
            _measure(encoders[name][0], texts, options, files[name], progress)
    return _together({name: json.loads(file.read_text(encoding="utf-8")) for name, file in files.items()})


def _identity(benchmark: "Benchmark", fingerprint: str, options: EncoderOptions) -> dict[str, Any]:
    asked = benchmark.config.geometry
    return {
        "encoder": fingerprint,
        "max_length": options.max_length,
        "dtype": options.dtype,
        "documents": benchmark.documents_identity,
        "queries": benchmark.queries_fingerprint,
        "options": None if asked is None else asked.model_dump(mode="json"),
    }


def _texts(benchmark: "Benchmark", progress: bool | None) -> "Texts":
    from mimo_plugin.analysis.texts import Role, sample_texts

    asked = benchmark.config.geometry
    if asked is None:
        raise ValueError("the config asks for no geometry")
    return sample_texts(
        benchmark.pool,
        benchmark.specs,
        role=Role(asked.role.value),
        count=asked.texts,
        seed=asked.seed,
        progress=progress,
    )


def _measure(
    system: "System", texts: "Texts", options: EncoderOptions, file: Path, progress: bool | None
) -> None:
    from mimo_plugin.analysis.analysis import analyse
    from mimo_plugin.analysis.encoders import Encoder
    from mimo_plugin.analysis.json_report import as_json

    if system.encoder is None:
        raise ValueError(f"system {system.name} has no encoder")
    encoder = Encoder(system.name, system.encoder, system.training)
    found = as_json(analyse([encoder], texts, options, progress=progress))
    make_parent(file)
    write_text(file, json.dumps(found, ensure_ascii=False, allow_nan=False) + "\n")


def _together(found: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """One object of the objects of each encoder, which are all about the same texts."""
    first = next(iter(found.values()))
    return {
        "texts": first["texts"],
        "encoders": {name: each["encoders"][name] for name, each in found.items()},
        "skipped": {what: reason for each in found.values() for what, reason in each["skipped"].items()},
    }
