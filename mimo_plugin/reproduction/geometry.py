"""How each encoder's vectors lie, on a sample of the benchmark's texts; measured once an encoder."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mimo_plugin.data.identity import identity_key
from mimo_plugin.errors import DataError, ModelError
from mimo_plugin.files import make_parent, write_text
from mimo_plugin.manifests import sealed_text, unseal
from mimo_plugin.reproduction.directory import GEOMETRY
from mimo_plugin.reproduction.models import Facts, shortened
from mimo_plugin.student import EncoderOptions

if TYPE_CHECKING:
    from mimo_plugin.analysis.texts import Texts
    from mimo_plugin.reproduction.parts import Benchmark
    from mimo_plugin.reproduction.systems import System


def encoder_geometry(
    benchmark: "Benchmark",
    encoders: Mapping[str, tuple["System", Facts]],
    output: Path,
    options: EncoderOptions,
    say: Callable[[str], Any],
    progress: bool | None,
) -> tuple[dict[str, Any] | None, list[str]]:
    """The geometry of all encoders as one JSON object, and what a user should know, a line each.

    The object is None where there are no encoders, where the config wants none, and where there is none.

    Args:
        encoders: name -> system, and what is known of its encoder.
    """
    asked = benchmark.config.geometry
    if asked is None or not encoders:
        return None, []
    files = {
        name: output / GEOMETRY / f"{name}-{identity_key(_identity(benchmark, system, facts))}.json"
        for name, (system, facts) in encoders.items()
    }
    found = {name: _read(file) for name, file in files.items()}
    warnings = []
    if None in found.values():
        try:
            texts = _texts(benchmark, progress)
        except DataError as error:
            return None, [f"geometry left out: {error}"]
        for name, there in found.items():
            if there is None:
                say(f"{name}: geometry of {len(texts.texts):,} {texts.role.value}")
                try:
                    found[name] = _measure(encoders[name][0], texts, options, files[name], progress)
                except (DataError, ModelError) as error:
                    # Scores are there by now, and are worth more than this.
                    warnings.append(f"{name}: geometry left out: {error}")
    return _together({name: there for name, there in found.items() if there is not None}), warnings


def _identity(benchmark: "Benchmark", system: "System", facts: Facts) -> dict[str, Any]:
    asked = benchmark.config.geometry
    return {
        "encoder": facts.fingerprint,
        "prompts": (facts.document_prompt, facts.query_prompt),
        "max_length": facts.max_length,
        "dtype": facts.dtype,
        "trail": None if system.training is None else _trail(system.training),
        "setting": benchmark.config.setting.value,
        "collections": [part.key for part in benchmark.parts],
        "documents": benchmark.documents_identity,
        "queries": benchmark.queries_fingerprint,
        "options": None if asked is None else asked.model_dump(mode="json"),
        **shortened(facts),
    }


def _trail(training: Path) -> list[str]:
    from mimo_plugin.analysis.trail import checkpoints

    return [path.name for _, path in checkpoints(training)]


def _read(file: Path) -> dict[str, Any] | None:
    """What was measured before; None where there is nothing, or something damaged: it is measured again."""
    try:
        found, whole = unseal(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return None
    there = isinstance(found, dict) and found.keys() >= {"texts", "encoders", "skipped"}
    return found if there and whole else None


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
) -> dict[str, Any]:
    from mimo_plugin.analysis.analysis import analyse
    from mimo_plugin.analysis.encoders import Encoder
    from mimo_plugin.analysis.json_report import as_json

    if system.encoder is None:
        raise ValueError(f"system {system.name} has no encoder")
    encoder = Encoder(system.name, system.encoder, system.training)
    found = as_json(analyse([encoder], texts, options, progress=progress))
    make_parent(file)
    write_text(file, sealed_text(found))
    return found


def _together(found: Mapping[str, Mapping[str, Any]]) -> dict[str, Any] | None:
    """One object of the objects of each encoder, which are all about the same texts."""
    if not found:
        return None
    first = next(iter(found.values()))
    return {
        "texts": first["texts"],
        "encoders": {name: each["encoders"][name] for name, each in found.items()},
        "skipped": {what: reason for each in found.values() for what, reason in each["skipped"].items()},
    }
