"""What a stage starts from besides its data: devices, trackers, dev collection, student."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mimo_plugin.core.environment import reachable
from mimo_plugin.core.errors import DataError, EnvironmentProblem, UsageError
from mimo_plugin.encoder import packaged
from mimo_plugin.encoder.checkpoint import check_device, check_files
from mimo_plugin.evaluation.trained_on import SeenTexts
from mimo_plugin.training.cut import Cut
from mimo_plugin.training.data import Pairs, Table
from mimo_plugin.training.models import StudentOptions
from mimo_plugin.training.recipe import Recipe
from mimo_plugin.training.run import checkpoint_of
from mimo_plugin.training.student import PREFIX, load_or_create, parse_size

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from mimo_plugin.encoder.encoder import Encoder
    from mimo_plugin.evaluation.topics import Topics

_WANDB = "https://api.wandb.ai"
# Timeout between processes: the others wait while the first one runs the teacher.
_PATIENCE = timedelta(days=7)


@dataclass(frozen=True)
class Devices:
    """Where a run trains.

    Attributes:
        kind: cpu, cuda or mps.
        processes: number of processes that train together.
        main: whether this process writes.
    """

    kind: str
    processes: int
    main: bool

    @classmethod
    def find(cls, device: str | None) -> "Devices":
        """Finds the device; starts the process group if a launcher (torchrun, accelerate) asks for one."""
        import torch
        from accelerate import PartialState

        kind = torch.device(check_device(device))
        if kind.type == "cuda" and kind.index:
            raise UsageError(f"--device {device}: to train on that GPU set CUDA_VISIBLE_DEVICES={kind.index}")
        state = PartialState(cpu=kind.type == "cpu", timeout=_PATIENCE)
        return cls(kind.type, state.num_processes, state.is_main_process)

    def wait(self) -> None:
        """Waits for all processes."""
        from accelerate import PartialState

        PartialState().wait_for_everyone()


def check_trackers(names: Sequence[str]) -> None:
    """Checks that trackers are known and installed; sets wandb offline if its host cannot be reached."""
    if not names:
        return
    from huggingface_hub import constants
    from transformers.integrations import get_available_reporting_integrations
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    for name in names:
        if name not in INTEGRATION_TO_CALLBACK:
            known = ", ".join(sorted(INTEGRATION_TO_CALLBACK))
            raise UsageError(f"--report-to {name}: unknown, expected one of {known}")
        if name not in get_available_reporting_integrations():
            raise EnvironmentProblem(
                f"--report-to {name}: is not installed: pip install {name}, or leave the option out "
                "(metrics are in the run's directory in any case, for TensorBoard too)"
            )
    if "wandb" in names and "WANDB_MODE" not in os.environ:
        online = not constants.HF_HUB_OFFLINE and reachable([os.environ.get("WANDB_BASE_URL", _WANDB)])
        os.environ["WANDB_MODE"] = "online" if online else "offline"


CUTOFF = 20
# The measure that selects the best checkpoint.
MAIN_MEASURE = f"ndcg@{CUTOFF}"


@dataclass(frozen=True)
class DevCollection:
    """A collection small enough to encode at every evaluation.

    Attributes:
        docids, texts, languages: of each document.
        queries: (query id, text) of each judged query.
    """

    docids: Sequence[str]
    texts: Sequence[str]
    languages: Sequence[str]
    queries: Sequence[tuple[str, str]]
    topics: "Topics"

    @classmethod
    def load(cls, collection: str) -> "DevCollection":
        """Reads a collection with documents, queries and judgments into memory."""
        from mimo_plugin.collections.loading import require
        from mimo_plugin.collections.pool import load
        from mimo_plugin.evaluation.topics import load_topics

        require([collection], docs=True, queries=True, qrels=True)
        pool = load(collection)
        topics = load_topics(pool)
        docs = list(dict.fromkeys(pool.docs_iter()))
        if not docs:
            raise DataError(f"{collection} has no documents: a dev collection with some was expected")
        judged = set(topics.query_ids)
        return cls(
            [doc.doc_id for doc in docs],
            [doc.text for doc in docs],
            [doc.lang for doc in docs],
            [(query.query_id, query.text) for query in pool.queries_iter() if query.query_id in judged],
            topics,
        )

    def score(self, student: "Encoder") -> dict[str, float]:
        """Scores an exact search for all queries.

        Returns:
            nDCG@20 over all languages, share of the top 20 in the query's language, alignment (if there are
            language versions) and uniformity of the documents.
        """
        import numpy as np

        from mimo_plugin.evaluation.geometry import alignment, uniformity
        from mimo_plugin.evaluation.language import language_mix
        from mimo_plugin.evaluation.measures import parse_measures, score_run
        from mimo_plugin.evaluation.runs import Run
        from mimo_plugin.evaluation.topics import version_groups
        from mimo_plugin.indexing.nearest import nearest

        documents = student.encode_documents(self.texts)
        vectors = student.encode_queries([text for _, text in self.queries])
        query_ids = [query_id for query_id, _ in self.queries]
        run = Run("dev", nearest(query_ids, vectors, self.docids, documents, CUTOFF))
        (measure,) = parse_measures([MAIN_MEASURE])
        doc_languages = dict(zip(self.docids, self.languages, strict=True))
        unit = documents / np.linalg.norm(documents, axis=1, keepdims=True).clip(1e-12)
        groups = version_groups(self.docids, self.languages, self.topics)
        scores = {
            MAIN_MEASURE: float(np.mean(score_run(run, self.topics, [measure]).per_topic[measure])),
            f"same_language@{CUTOFF}": language_mix(
                run, self.topics.query_languages, doc_languages, CUTOFF
            ).own,
        }
        if len(set(groups)) < len(groups):
            scores["alignment"] = alignment(unit, groups, self.languages)
        return {**scores, "uniformity": uniformity(unit)}


def check_student(student: str) -> None:
    """Checks a student without loading it: its size, run or files."""
    if student.startswith(PREFIX):
        parse_size(student)
    else:
        check_files(packaged.resolve(checkpoint_of(student)), student)


@dataclass(frozen=True)
class Start:
    """A student before its training.

    Attributes:
        model: None for a student that is made later: a new one, or a smaller one.
        fingerprint: of the loaded weights; None for a new student.
        seen: texts of its earlier training; None if unknown.
        cut: how a smaller student is made of the loaded one.
    """

    model: "SentenceTransformer | None" = None
    fingerprint: str | None = None
    seen: SeenTexts | None = None
    cut: Cut | None = None

    @classmethod
    def load(cls, recipe: Recipe, max_length: int, devices: Devices) -> "Start":
        """Loads a checkpoint; a new student has nothing to load. Raises as `load_or_create` and `Cut.of`."""
        from mimo_plugin.encoder.fingerprint import fingerprint

        student = recipe.student
        if student.new:
            return cls()
        checkpoint = checkpoint_of(student.checkpoint)
        model = load_or_create(
            checkpoint,
            (),
            seed=recipe.seed,
            max_length=max_length,
            device=devices.kind,
            **student.encoding(),
        )
        cut = Cut.of(model, student.checkpoint, student.layers, student.vocabulary)
        return cls(None if cut else model, fingerprint(model), SeenTexts.open(checkpoint), cut)

    def student(
        self,
        kept: Path,
        data: Callable[[], Sequence[Pairs | Table]],
        recipe: Recipe,
        max_length: int,
        devices: Devices,
        progress: bool | None = None,
    ) -> "SentenceTransformer":
        """The student, ready to be trained.

        Args:
            kept: directory where a student that is made is saved before training, to resume from.
            data: what its vocabulary comes from, see `make_student`.
        """
        if self.model is not None:
            self.model.max_seq_length = max_length
            return self.model
        if devices.main and not kept.is_dir():
            from mimo_plugin.training.record import save_student

            made = make_student(
                recipe.student,
                data(),
                seed=recipe.seed,
                # Long enough for both stages.
                max_length=max(recipe.stage1.max_length, recipe.stage2.max_length),
                device=devices.kind,
                progress=progress,
            )
            save_student(made, kept)
        devices.wait()
        return load_or_create(str(kept), (), seed=recipe.seed, max_length=max_length, device=devices.kind)


def make_student(
    options: StudentOptions,
    data: Sequence[Pairs | Table],
    *,
    seed: int,
    max_length: int,
    device: str,
    progress: bool | None = None,
) -> "SentenceTransformer":
    """A new student, or a smaller one of a checkpoint.

    Args:
        data: the first one's texts train a new tokenizer; a checkpoint's vocabulary is cut to all texts.
        max_length: longest text of a new student in tokens.
        progress: see `environment.bar`.

    Raises: as `load_or_create` and `Cut`.
    """
    settings: dict[str, Any] = {"seed": seed, "device": device, **options.encoding()}
    if options.new:
        settings |= {"max_length": max_length, "layers": options.layers, "vocab_size": options.vocabulary}
        return load_or_create(options.checkpoint, data[0].labelled(), **settings)
    model = load_or_create(checkpoint_of(options.checkpoint), (), **settings)
    cut = Cut.of(model, options.checkpoint, options.layers, options.vocabulary)
    if cut is not None:
        texts = chain.from_iterable(one.texts() for one in data)
        # Each text of a row has one language, and a partner.
        total = sum(2 * rows for one in data for rows in one.manifest.languages.values())
        cut.apply(model, texts, total=total, progress=progress)
    return model
