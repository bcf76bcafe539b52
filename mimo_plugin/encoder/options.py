"""How a checkpoint is loaded and run, and the same as options of a command."""

from dataclasses import dataclass
from typing import Annotated

from mimo_plugin.core.option import Option

AUTO, TORCH, ONNX, OPENVINO = BACKENDS = ("auto", "torch", "onnx", "openvino")

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
    """How a checkpoint is loaded and run; None means what the checkpoint's own files say.

    Attributes:
        attention: implementation of the attention, "eager", "sdpa", "flash_attention_2", ...; None is what
            transformers chooses.
        override: False lets a checkpoint in sentence-transformers layout win over `pooling` and `normalize`.
    """

    device: Annotated[str | None, Option("cpu, cuda, cuda:1, mps.  [default: the fastest that is there]")] = (
        None
    )
    dtype: Annotated[
        str,
        Option(
            "Number format of the model's weights; vectors are always stored as float32. int8 changes them "
            "most, see performance/README.md.",
            choices=("float32", "bfloat16", "float16", "int8"),
        ),
    ] = "float32"
    backend: Annotated[
        str,
        Option(
            "What runs the model. auto: openvino for float32 on a CPU, where it is installed and gives the "
            "same vectors, else torch.",
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
            "Where a checkpoint's files name no prompts, take those that its family is published with: E5, "
            "BGE, GTE, Arctic, Qwen3-Embedding, EmbeddingGemma, Granite."
        ),
    ] = True
    attention: str | None = None
    override: bool = True
