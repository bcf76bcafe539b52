"""How a checkpoint is loaded and run, and the same as options of a command.

`mimo --help` imports it: nothing heavy is imported here.
"""

import os
from dataclasses import dataclass
from typing import Annotated, ClassVar

from mimo_plugin.core.environment import missing, require_extra
from mimo_plugin.core.errors import UsageError
from mimo_plugin.core.option import Option

AUTO, TORCH, ONNX, OPENVINO = BACKENDS = ("auto", "torch", "onnx", "openvino")
FLOAT32, BFLOAT16, FLOAT16, INT8 = "float32", "bfloat16", "float16", "int8"
# Number formats that each can compute in.
_DTYPES = {
    TORCH: (AUTO, FLOAT32, BFLOAT16, FLOAT16),
    ONNX: (AUTO, FLOAT32, INT8),
    OPENVINO: (AUTO, FLOAT32, BFLOAT16),
}
# Packages of each in the extra `fast`, by the name of import.
MODULES = {TORCH: (), ONNX: ("onnx", "onnxruntime", "onnxscript"), OPENVINO: ("openvino",)}

Dimension = Annotated[
    int | None,
    Option(
        "Keep the first N components of each vector, for Matryoshka models, and normalise what is left where "
        "the vectors are normalised.  [default: all]",
        metavar="N",
        min=1,
    ),
]


@dataclass(frozen=True)
class EncoderOptions:
    """How a checkpoint is loaded and run; None leaves it to the checkpoint's files.

    Attributes:
        attention: "eager", "sdpa", "flash_attention_2", ...; None is the choice of transformers.
        GROUP: of the options in `--help`.
        override: False lets a checkpoint in sentence-transformers layout win over `pooling` and `normalize`.
    """

    GROUP: ClassVar[str] = "Encoder"

    device: Annotated[str | None, Option("cpu, cuda, cuda:1, mps.  [default: the fastest that is there]")] = (
        None
    )
    dtype: Annotated[
        str,
        Option(
            "Number format that the model computes in; vectors are always stored as float32. auto: that of "
            "the index, or of a command that is resumed; else bfloat16 where openvino runs the model, the "
            "processor multiplies bfloat16 natively, and vectors of real texts, the collection's included, "
            "have cosines of 0.999 and above to those in float32; else float32. int8 changes them most, see "
            "performance/README.md.",
            choices=(AUTO, FLOAT32, BFLOAT16, FLOAT16, INT8),
        ),
    ] = AUTO
    backend: Annotated[
        str,
        Option(
            "What runs the model. auto: openvino for float32 and bfloat16 on a CPU, where it is installed "
            "and gives the same vectors, else torch.",
            choices=BACKENDS,
        ),
    ] = AUTO
    batch_size: Annotated[int, Option("Most texts a batch; long texts share one with fewer.", min=1)] = 64
    max_length: Annotated[
        int | None,
        Option("Longest text in tokens, the rest is cut off.  [default: the checkpoint's own]", min=3),
    ] = None
    pooling: Annotated[
        str | None,
        Option(
            "Overrides the checkpoint's pooling.  [default: the checkpoint's own, else mean]",
            choices=("mean", "cls", "max", "lasttoken"),
        ),
    ] = None
    normalize: Annotated[
        bool | None, Option("L2-normalise the vectors.  [default: as the checkpoint says, else yes]")
    ] = None
    dimension: Dimension = None
    query_prompt: Annotated[
        str | None,
        Option(
            "Put before each query exactly as given: quote it, so that a space at its end counts, as in "
            "--query-prompt 'query: '; '' is nothing.  [default: the index's, else the checkpoint's own]",
            metavar="TEXT",
        ),
    ] = None
    document_prompt: Annotated[
        str | None,
        Option("Put before each document, likewise, as in --document-prompt 'passage: '.", metavar="TEXT"),
    ] = None
    known_prompts: Annotated[
        bool,
        Option(
            "Where a checkpoint's files name no prompts, take its family's published ones: E5, BGE, GTE, "
            "Arctic, Qwen3-Embedding, EmbeddingGemma, Granite."
        ),
    ] = True
    attention: str | None = None
    override: bool = True


def wanted(backend: str, dtype: str, device: str | None) -> str:
    """The requested backend; "auto" where the choice depends on the model and the machine.

    The environment variable MIMO_BACKEND replaces "auto".

    Raises:
        EnvironmentProblem: the backend is not installed.
        UsageError: no such backend, or it does not support this number format or device.
    """
    name = os.environ.get("MIMO_BACKEND") or AUTO if backend == AUTO else backend
    if name not in BACKENDS:
        raise UsageError(f"backend {name!r}: one of {', '.join(BACKENDS)} was expected")
    if name == AUTO:
        if dtype in _DTYPES[OPENVINO]:
            return AUTO
        name = ONNX if dtype == INT8 else TORCH
    if dtype not in _DTYPES[name]:
        able = [other for other, dtypes in _DTYPES.items() if dtype in dtypes]
        raise UsageError(
            f"--backend {name} runs {', '.join(_DTYPES[name][1:])}, not {dtype}: "
            + (f"use --backend {' or '.join(able)}" if able else "choose another --dtype")
        )
    if name != TORCH:
        if device is not None and device != "cpu":
            raise UsageError(f"--backend {name} runs on the CPU, not on {device}: leave --device out")
        require_extra(f"--backend {name}", MODULES[name], "fast")
    return name


def installed(backend: str) -> bool:
    """Whether the packages of a backend are installed."""
    return not missing(MODULES[backend])
