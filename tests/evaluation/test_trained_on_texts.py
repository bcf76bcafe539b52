"""The record of a student's training texts."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mimo_plugin.core.errors import ArtifactError
from mimo_plugin.evaluation import trained_on as seen
from mimo_plugin.evaluation.trained_on import FILE, SeenTexts, write_seen

TEXTS = [f"A text about the number {number}" for number in range(400)]


def record(directory: Path) -> SeenTexts:
    found = SeenTexts.open(directory)
    assert found is not None
    return found


def test_counts_what_was_trained_on(tmp_path: Path) -> None:
    written = write_seen(tmp_path, TEXTS[:100] * 3, training_data="pairs")
    assert written.bytes == (tmp_path / FILE).stat().st_size
    found = record(tmp_path)
    assert (found.training_data, found.share, len(found.hashes)) == ("pairs", 1.0, 100)
    assert found.count(TEXTS) == 100
    # Of the same text in other dress; each that is given counts.
    assert found.count(["  a TEXT about\tthe number ７\n", "A text about the number 7"]) == 2
    assert found.count(["A text about the number 700", ""]) == 0
    assert found.count(iter(())) == 0


def test_a_later_stage_adds_to_what_was_there(tmp_path: Path) -> None:
    for name in ("one", "two", "both"):
        (tmp_path / name).mkdir()
    write_seen(tmp_path / "one", TEXTS[:100], training_data="pairs")
    write_seen(tmp_path / "two", TEXTS[50:150], training_data="table", before=record(tmp_path / "one"))
    write_seen(tmp_path / "both", TEXTS[:150], training_data="pairs, table")
    assert (tmp_path / "two" / FILE).read_bytes() == (tmp_path / "both" / FILE).read_bytes()


def test_languages_of_all_stages_are_known_or_none_is(tmp_path: Path) -> None:
    for name in ("one", "two", "old", "later"):
        (tmp_path / name).mkdir()
    write_seen(tmp_path / "one", TEXTS[:10], languages={"fi": 3, "de": 7})
    assert record(tmp_path / "one").languages == ("de", "fi")
    write_seen(tmp_path / "two", TEXTS[:10], languages=["ja", "de"], before=record(tmp_path / "one"))
    assert record(tmp_path / "two").languages == ("de", "fi", "ja")
    # Records of earlier versions have no languages: what the first stage saw is not known.
    with np.load(tmp_path / "one" / FILE, allow_pickle=False) as found:
        np.savez(tmp_path / "old" / FILE, **{key: found[key] for key in found if key != "languages"})
    assert record(tmp_path / "old").languages == ()
    assert np.array_equal(record(tmp_path / "old").hashes, record(tmp_path / "one").hashes)
    write_seen(tmp_path / "later", TEXTS[:10], languages=["ja"], before=record(tmp_path / "old"))
    assert record(tmp_path / "later").languages == ()


@pytest.mark.slow
@given(st.permutations(range(400)), st.integers(1, 5))
def test_large_data_keep_a_sample_that_does_not_depend_on_order(
    tmp_path_factory: pytest.TempPathFactory, order: list[int], parts: int
) -> None:
    directory = tmp_path_factory.mktemp("seen")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(seen, "MOST", 64)
        patch.setattr(seen, "_READ_AT_ONCE", 30)
        before = None
        for part in np.array_split(np.array(order), parts):
            write_seen(directory, [TEXTS[k] for k in part], training_data="data", before=before)
            before = record(directory)
        assert before is not None
        assert len(before.hashes) == 64
        assert before.training_data == "data"
        write_seen(directory, TEXTS, training_data="data")
        assert np.array_equal(record(directory).hashes, before.hashes)
    # An estimate: of 400 texts 64 are known.
    assert 250 < before.count(TEXTS) <= 400
    assert before.count(f"another {number}" for number in range(400)) < 20


def test_checkpoints_without_a_record(tmp_path: Path) -> None:
    for checkpoint in (
        tmp_path,
        "packaged:all-MiniLM-L6-v2",
        "nobody/nothing",
        str(tmp_path / "none"),
        "a b",
    ):
        assert SeenTexts.open(checkpoint) is None


def test_a_run_of_training_is_looked_into(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    write_seen(tmp_path / "model", TEXTS, training_data="pairs")
    assert record(tmp_path).count(TEXTS) == 400


def test_a_damaged_record(tmp_path: Path) -> None:
    write_seen(tmp_path, TEXTS, training_data="pairs")
    content = (tmp_path / FILE).read_bytes()
    for damaged in (content[:-30], b"", content[:200] + b"\xff" * 200 + content[400:], b"not a record"):
        (tmp_path / FILE).write_bytes(damaged)
        with pytest.raises(ArtifactError, match="not the record of a student's training texts"):
            SeenTexts.open(tmp_path)
