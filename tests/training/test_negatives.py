"""Mined negatives in training: which texts they are, and that nothing changes without them."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from helpers import tiny_training
from helpers.tiny_training import PASSAGE, World, same_weights, text

from mimo_plugin.cli import main
from mimo_plugin.core.errors import UsageError
from mimo_plugin.training.data import Format, Table, data_of, open_table
from mimo_plugin.training.examples import Examples, Relevance, mined_negatives, plan_stage2
from mimo_plugin.training.recipe import Stage2Options
from mimo_plugin.training.schedule import Objective
from mimo_plugin.training.stages import train_stage2

COUNT = 60
WHERE = {text(PASSAGE[lang], n): (lang, n) for lang in PASSAGE for n in range(COUNT)}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    world = World.make(tmp_path_factory.mktemp("world"))
    tiny_training.write_table(world.root / "mined", negatives=3)
    return world


def plan(table: Path, **options: Any) -> Examples:
    settings = Stage2Options(**{"batch_size": 6, "steps": 40, "objective": Objective.XLCO, **options})
    return plan_stage2(open_table(table), settings, seed=1)(None)


@pytest.mark.parametrize("objective", [Objective.XLCO, Objective.INFONCE])
def test_negatives_are_the_tables_in_the_language_of_the_passage(world: World, objective: Objective) -> None:
    examples = plan(world.root / "mined", objective=objective)
    names = [f"negative_{k}" for k in (1, 2, 3)]
    assert examples.text_columns == ("query", "passage", *names)
    rows = examples.dataset[:]
    others = Counter()
    for k, passage in enumerate(rows["passage"]):
        lang, number = WHERE[passage]
        found = [WHERE[rows[name][k]] for name in names]
        mined = [(number + more) % COUNT for more in (1, 2, 3)]
        # A row with fewer gets a passage at random in its place.
        whole = 2 if number % 5 == 0 else 3
        assert [other for _, other in found[:whole]] == mined[:whole]
        assert len({other for _, other in found} | {number}) == 4
        for own, other in found:
            assert own == lang or (lang == "ru" and other % 3 == 0)
            others.update([own] * (own != lang))
    # Where the language is missing, one of the others is drawn.
    assert set(others) == {"de", "en"}


def test_no_batch_holds_a_negative_that_is_anothers_passage(world: World) -> None:
    rows = plan(world.root / "mined").dataset[:]
    for start in range(0, 240, 6):
        batch = slice(start, start + 6)
        passages = {WHERE[passage][1] for passage in rows["passage"][batch]}
        for name in ("negative_1", "negative_2", "negative_3"):
            assert passages.isdisjoint(WHERE[negative][1] for negative in rows[name][batch])


def test_fewer_negatives_than_the_table_has(world: World) -> None:
    assert plan(world.root / "mined", negatives=1).text_columns == ("query", "passage", "negative_1")
    none, plain = plan(world.root / "mined", negatives=0), plan(world.root / "table")
    assert none.text_columns == plain.text_columns == ("query", "passage")
    assert none.dataset[:] == plain.dataset[:]


def test_a_seed_decides_the_negatives(world: World) -> None:
    one, same = (plan(world.root / "mined").dataset[:] for _ in range(2))
    assert one == same


def table_of(rows: list[dict[str, Any]]) -> Table:
    found = data_of(Dataset.from_list(rows), Format.TABLE)
    assert isinstance(found, Table)
    return found


def row(query: int, passage: int, negatives: list[str], langs: str = "en de") -> dict[str, Any]:
    own = langs.split()
    texts = {
        "queries": [f"q{query} {lang}" for lang in own],
        "passages": [f"p{passage} {lang}" for lang in own],
    }
    return {"query_id": f"{query}", "passage_id": f"{passage}", "langs": own, **texts, "negatives": negatives}


def test_relevant_repeated_and_unknown_ids_are_passed_over() -> None:
    """A dataset in memory may have them: mined elsewhere, or rows left out since."""
    rows = [
        row(1, 1, ["2", "3", "3", "gone", "4"]),
        row(1, 2, ["5"]),
        row(3, 3, []),
        row(4, 3, ["1"], "en de fr"),
        row(5, 4, ["4"]),
        row(6, 5, ["1"]),
    ]
    data = table_of(rows)
    assert data.manifest.negatives is not None
    assert data.manifest.negatives.most == 5
    relevance = Relevance.of(data)
    found = mined_negatives(data, relevance, 2, np.random.default_rng(0))
    # 2 is relevant to the same query; of two rows with passage 3, the one in more languages stands for it.
    assert found[0].tolist() == [3, 4]
    assert found[[1, 3, 5], 0].tolist() == [5, 0, 0]
    for own, others in enumerate(found.tolist()):
        relevant = set(relevance.passages[relevance.queries == relevance.queries[own]])
        passages = relevance.passages[others].tolist()
        assert len({*passages} - relevant) == 2
    with pytest.raises(
        UsageError, match="--negatives 4: of 5 passages in the table, 2 are relevant to query 1"
    ):
        mined_negatives(data, relevance, 4, np.random.default_rng(0))


@pytest.mark.slow
def test_without_negatives_the_weights_are_those_of_a_table_without(world: World, tmp_path: Path) -> None:
    changes = {"carry_projection": False, "steps": 2}
    table = world.recipe(stage2=changes)
    mined = world.recipe(table=str(world.root / "mined"), stage2=changes)
    ignored = world.recipe(table=str(world.root / "mined"), stage2={**changes, "negatives": 0})
    for name, recipe in (("table", table), ("mined", mined), ("ignored", ignored)):
        train_stage2(recipe, world.job(tmp_path / name))
    assert same_weights(tmp_path / "table", tmp_path / "ignored")
    assert not same_weights(tmp_path / "table", tmp_path / "mined")


def test_prompts_of_passages_are_put_before_negatives(world: World) -> None:
    from mimo_plugin.training.student import load_or_create
    from mimo_plugin.training.trainer import _prompts

    student = str(world.root / "student")
    model = load_or_create(student, (), seed=0, device="cpu", query_prompt="q: ", document_prompt="d: ")
    found = _prompts(model, ("query", "other_query", "passage", "negative_1", "text"))
    assert found == {"query": "q: ", "other_query": "q: ", "passage": "d: ", "negative_1": "d: "}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--table", "{root}/table", "--negatives", "2"], "has none: `mimo data negatives` mines some"),
        (["--table", "{root}/mined", "--negatives", "4"], "--negatives 4: the table has at most 3 per row"),
        (
            ["--table", "{root}/mined", "--negatives", "1", "--objective", "lakda"],
            "--negatives 1: LaKDA has no mined negatives",
        ),
    ],
)
def test_bad_input(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    given = [argument.format(root=world.root) for argument in arguments]
    student = ["--student", str(world.root / "student"), "--batch-size", "8"]
    teacher = ["--teacher", str(world.root / "teacher"), "--fresh-projection"]
    assert main(["train", "stage2", *given, *student, *teacher, "--output", str(tmp_path / "run")]) == 2
    assert message in capsys.readouterr().err


def test_lakda_says_that_it_uses_none(world: World, caplog: pytest.LogCaptureFixture) -> None:
    from mimo_plugin.training.stages import Stage

    recipe = world.recipe(table=str(world.root / "mined"), stage2={"objective": "lakda"})
    Stage("stage2", recipe, world.job(world.root / "none"), {}).check_data()
    assert "mined negatives are not used: LaKDA has none" in caplog.text
    assert plan(world.root / "mined", objective=Objective.LAKDA).text_columns == (
        "query",
        "other_query",
        "passage",
    )


def test_old_identities_hold() -> None:
    assert "negatives" not in Stage2Options().identity()
    assert Stage2Options(negatives=0).identity()["negatives"] == 0
