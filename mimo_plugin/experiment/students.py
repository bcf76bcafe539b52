"""The new student that all systems of a seed start from, those with a warm-up and those without."""

from pathlib import Path

from mimo_plugin.data.stored import open_pairs, open_table
from mimo_plugin.experiment.systems import Experiment
from mimo_plugin.training.stage_texts import labelled_rows, labelled_texts


def make_student(experiment: Experiment, seed: int, directory: Path) -> None:
    """Makes and saves the student of a seed; the directory is there when it is whole.

    Its tokenizer is of that seed as well, so that the deviation over seeds holds for the whole of training.

    Raises: as `load_or_create` and `save_student`.
    """
    from mimo_plugin.training.initial_student import load_or_create
    from mimo_plugin.training.saving import save_student

    pairs, table = experiment.tokenizer_texts
    student = load_or_create(
        experiment.student.checkpoint,
        labelled_rows(open_table(table)) if pairs is None else labelled_texts(open_pairs(pairs)),
        seed=seed,
        max_length=experiment.max_length,
        vocab_size=experiment.student.vocabulary,
        device="cpu",
        **experiment.student.encoding(),
    )
    save_student(student, directory)
