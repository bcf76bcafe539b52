"""What a stage starts from besides its data: devices, trackers, dev collection, student."""

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from mimo_plugin.core.environment import reachable
from mimo_plugin.core.errors import DataError, EnvironmentProblem, UsageError
from mimo_plugin.encoder import packaged
from mimo_plugin.encoder.checkpoint import check_device, check_files
from mimo_plugin.evaluation.trained_on import SeenTexts
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
        model: None for a new student, which is made later.
        fingerprint: of the loaded weights; None for a new student.
        seen: texts of its earlier training; None if unknown.
    """

    model: "SentenceTransformer | None" = None
    fingerprint: str | None = None
    seen: SeenTexts | None = None

    @classmethod
    def load(cls, recipe: Recipe, max_length: int, devices: Devices) -> "Start":
        """Loads a checkpoint; a new student has nothing to load. Raises as `load_or_create`."""
        from mimo_plugin.encoder.fingerprint import fingerprint

        if recipe.student.checkpoint.startswith(PREFIX):
            return cls()
        checkpoint = checkpoint_of(recipe.student.checkpoint)
        model = load_or_create(
            checkpoint,
            (),
            seed=recipe.seed,
            max_length=max_length,
            device=devices.kind,
            **recipe.student.encoding(),
        )
        return cls(model, fingerprint(model), SeenTexts.open(checkpoint))

    def student(
        self,
        kept: Path,
        texts: Callable[[], Iterable[tuple[str, str]]],
        recipe: Recipe,
        max_length: int,
        devices: Devices,
    ) -> "SentenceTransformer":
        """The student, ready to be trained.

        Args:
            kept: directory where a new student is saved before training, to resume from.
            texts: (language, text) pairs that a new student's tokenizer is trained on.
        """
        if self.model is not None:
            self.model.max_seq_length = max_length
            return self.model
        if devices.main and not kept.is_dir():
            from mimo_plugin.training.record import save_student

            new = load_or_create(
                recipe.student.checkpoint,
                texts(),
                seed=recipe.seed,
                # Long enough for both stages.
                max_length=max(recipe.stage1.max_length, recipe.stage2.max_length),
                vocab_size=recipe.student.vocabulary,
                device=devices.kind,
                **recipe.student.encoding(),
            )
            save_student(new, kept)
        devices.wait()
        return load_or_create(str(kept), (), seed=recipe.seed, max_length=max_length, device=devices.kind)
