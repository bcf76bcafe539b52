"""A whole experiment over tiny students: shared parts, resumption, figures and tests recomputed."""

import json
import shutil
from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers.checkpoints import plain_xlmr, sentence_transformer
from helpers.tiny_experiment import TOPICS, WORDS, passage, query, recipe_values, write_recipe, write_world
from scipy.stats import spearmanr, ttest_rel

from mimo_plugin.benchmark import experiment as running
from mimo_plugin.benchmark.experiment import plan_experiment, run_experiment
from mimo_plugin.benchmark.grid import Experiment
from mimo_plugin.benchmark.seeds import gather, make_tables
from mimo_plugin.benchmark.settings import ExperimentOptions
from mimo_plugin.cli import main
from mimo_plugin.core.errors import UsageError
from mimo_plugin.data.writers import PairsWriter, TableWriter
from mimo_plugin.encoder.encoder import Encoder
from mimo_plugin.evaluation import fairness
from mimo_plugin.evaluation.compare import correct
from mimo_plugin.evaluation.significance import Plan
from mimo_plugin.training import trainer
from mimo_plugin.training.teacher_store import ANCHOR, TeacherStore

SYSTEMS, SEEDS = ("xlco", "mimo"), (1, 2)
VERSIONS = TOPICS * len(WORDS)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_world(tmp_path_factory.mktemp("world"))


@pytest.fixture(scope="module")
def finished(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("run") / "out"
    arguments = ["--output", str(output), "--teacher-store", str(output.with_name("store"))]
    assert main(["experiment", str(recipe), *arguments, "--device", "cpu", "--no-progress"]) == 0
    return output


def run(recipe: Path, output: Path, **options: Any) -> tuple[dict[str, Any], list[str]]:
    said: list[str] = []
    run_experiment(
        Experiment.read(recipe),
        output,
        ExperimentOptions(device="cpu", progress=False, **options),
        said.append,
    )
    return results(output), said


def results(output: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((output / "results.json").read_text(encoding="utf-8"))
    return found


def without_times(value: Any) -> Any:
    """Without what differs between two runs of the same."""
    if isinstance(value, dict):
        return {name: without_times(inner) for name, inner in value.items() if name != "seconds"}
    return [without_times(inner) for inner in value] if isinstance(value, list) else value


def scores(output: Path, system: str, seed: int) -> dict[str, Any]:
    (path,) = output.glob(f"systems/{system}-??????????/seed-{seed}/scores/test/scores.json")
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


def manifests(output: Path) -> dict[Path, int]:
    """What was trained, and when."""
    places = (*output.glob("warm-ups/*/*/manifest.json"), *output.glob("systems/*/*/training/manifest.json"))
    return {path: path.stat().st_mtime_ns for path in places}


def test_all_that_can_be_shared_is(finished: Path) -> None:
    assert len(list(finished.glob("students/*/seed-*"))) == len(SEEDS)
    assert len(list(finished.glob("warm-ups/*/seed-*"))) == len(SEEDS)
    assert len(manifests(finished)) == len(SEEDS) * (1 + len(SYSTEMS))
    # Distinct anchor passages, and the anchor's queries.
    assert len(TeacherStore.open(finished.with_name("store"))) == 2 * TOPICS
    for seed in SEEDS:
        (student,) = finished.glob(f"students/*/seed-{seed}")
        fingerprint = Encoder(str(student)).fingerprint
        (warm_up,) = finished.glob(f"warm-ups/*/seed-{seed}/manifest.json")
        (baseline,) = finished.glob(f"systems/xlco-*/seed-{seed}/training/manifest.json")
        for path in (warm_up, baseline):
            assert json.loads(path.read_text())["identity"]["student"]["fingerprint"] == fingerprint
    assert not (finished / "teacher-store").exists()
    assert not list(finished.rglob("checkpoint-*"))
    assert not list(finished.rglob("index"))


def test_figures_are_those_of_the_scores(finished: Path) -> None:
    systems = results(finished)["collections"]["test"]["systems"]
    text = (finished / "results.md").read_text(encoding="utf-8")
    for system in SYSTEMS:
        found = [scores(finished, system, seed) for seed in SEEDS]
        for measure in ("ndcg@20", "recall@100"):
            means = [np.mean(one["per_query"][measure]) for one in found]
            value = systems[system]["values"][measure]
            assert value["mean"] == pytest.approx(np.mean(means), abs=1e-12)
            assert value["deviation"] == pytest.approx(np.std(means, ddof=1), abs=1e-12)
            assert f"{np.mean(means):.4f} ± {np.std(means, ddof=1):.4f}" in text
        for name, value in systems[system]["values"].items():
            if name not in ("ndcg@20", "recall@100"):
                assert value["per_seed"] == {
                    str(seed): one["diagnostics"][name] for seed, one in zip(SEEDS, found, strict=True)
                }
    assert systems["mimo"]["steps"] == {"warm_up": 4, "stage2": 4}
    assert systems["xlco"]["steps"] == {"warm_up": 0, "stage2": 4}


def test_languages_without_training_data_are_marked(recipe: Path, finished: Path) -> None:
    options = ExperimentOptions(device="cpu", progress=False)
    run_of = running.ExperimentRun(Experiment.read(recipe), finished, options)
    whole = gather(run_of)
    assert whole.to_json() == (finished / "results.json").read_text(encoding="utf-8")
    per_language = [system.per_language for system in whole.collections["test"].systems.values()]
    assert [set(found) for found in per_language] == [{*WORDS, "macro"}] * len(SYSTEMS)
    run_of._data = {
        place: manifest.model_copy(update={"languages": {"de": 1, "en": 1}})
        for place, manifest in run_of._data.items()
    }
    found = gather(run_of)
    for name, system in found.collections["test"].systems.items():
        assert system.unseen_languages == ("fi",)
        for seed in SEEDS:
            one = scores(finished, name, seed)
            values = dict(zip(one["query_ids"], one["per_query"]["ndcg@20"], strict=True))
            means = {
                lang: np.mean([value for query_id, value in values.items() if query_id.startswith(lang)])
                for lang in WORDS
            }
            by_language = {key: value.per_seed[seed] for key, value in system.per_language.items()}
            assert {lang: by_language[lang] for lang in WORDS} == pytest.approx(means, abs=1e-12)
            assert by_language["macro"] == pytest.approx(one["macro"]["ndcg@20"], abs=1e-12)
            assert by_language["seen"] == pytest.approx((means["de"] + means["en"]) / 2, abs=1e-12)
            assert by_language["unseen"] == pytest.approx(means["fi"], abs=1e-12)
    table = list(make_tables(found))[1]
    assert [row[0] for row in table.rows] == ["de", "en", "fi*", "macro", "seen", "unseen"]
    assert table.notes[0].text == "* not among the training languages of xlco, mimo."


def test_diagnostics_by_hand(finished: Path) -> None:
    (model,) = finished.glob("systems/mimo-*/seed-1/training/model")
    student = Encoder(str(model))
    docids = [f"{lang}:{number}" for lang in WORDS for number in range(TOPICS)]
    languages = np.array([docid[:2] for docid in docids])
    documents = student.encode_documents([passage(docid[:2], int(docid[3:])) for docid in docids])
    found = scores(finished, "mimo", 1)
    queries = student.encode_queries([query(name[:2], int(name[3:])) for name in found["query_ids"]])
    own, mixed, shares = [], [], []
    for name, vector in zip(found["query_ids"], queries, strict=True):
        # One by one: a matrix product rounds the same document differently in different rows.
        alike = [np.dot(document, vector) for document in documents]
        order = sorted(range(len(docids)), key=lambda at: (alike[at], docids[at].encode()), reverse=True)
        ranks = np.flatnonzero([docids[at][3:] == name[3:] for at in order]) + 1
        gains = 1 / np.log2(ranks[ranks <= 20] + 1)
        mixed.append(gains.sum() / (1 / np.log2(np.arange(2, 5))).sum())
        shares.append(np.mean(languages[order[:20]] == name[:2]))
        within = [docids[at] for at in order if languages[at] == name[:2]]
        own.append(1 / np.log2(within.index(name) + 2))
    assert found["measures"]["ndcg@20"] == pytest.approx(np.mean(mixed), abs=1e-6)
    assert found["diagnostics"]["own language@20"] == pytest.approx(np.mean(shares), abs=1e-6)
    # One relevant document a query in its own language, and fewer than 20 documents there.
    assert found["diagnostics"]["same-language ndcg@20"] == pytest.approx(np.mean(own), abs=1e-6)
    apart = [
        ((documents[a * TOPICS : (a + 1) * TOPICS] - documents[b * TOPICS : (b + 1) * TOPICS]) ** 2)
        .sum(1)
        .mean()
        for a, b in ((0, 1), (0, 2), (1, 2))
    ]
    assert found["diagnostics"]["alignment"] == pytest.approx(np.mean(apart), abs=1e-5)
    squares = ((documents[:, None] - documents[None]) ** 2).sum(-1)[np.triu_indices(VERSIONS, 1)]
    assert found["diagnostics"]["uniformity"] == pytest.approx(np.log(np.exp(-2 * squares).mean()), abs=1e-5)
    similarity = dict(zip(found["query_ids"], queries @ documents.T, strict=True))
    assert found["diagnostics"]["mrc@20"] == pytest.approx(100 * rank_correlation(similarity), abs=0.1)
    assert found["diagnostics"]["peer@20 sensitive topics"] == 0
    assert "cannot tell systems apart" in found["remarks"]["peer@20"]


def rank_correlation(similarity: dict[str, np.ndarray]) -> float:
    """MRC@20 from all similarities, query id -> (documents,)."""
    by_language: dict[str, list[float]] = {lang: [] for lang in WORDS}
    for name, own in similarity.items():
        others = [f"{lang}:{name[3:]}" for lang in WORDS if lang != name[:2]]
        values = []
        for other in (similarity[other] for other in others if other in similarity):
            union = sorted({*np.argsort(-own)[:20].tolist(), *np.argsort(-other)[:20].tolist()})
            values.append(spearmanr(own[union], other[union]).statistic)
        by_language[name[:2]].append(float(np.mean(values)))
    return float(np.mean([np.mean(values) for values in by_language.values()]))


def test_the_paired_test_is_scipys_on_averaged_scores(finished: Path) -> None:
    content = results(finished)["collections"]["test"]
    (contrast,) = content["contrasts"]
    sides = []
    for system in SYSTEMS:
        found = [scores(finished, system, seed) for seed in SEEDS]
        ids = found[0]["query_ids"]
        values = np.mean([one["per_query"]["ndcg@20"] for one in found], axis=0)
        # The language versions of a topic are one unit.
        topics = sorted({name[3:] for name in ids})
        scale = len(topics) / len(ids)
        sides.append([scale * sum(v for n, v in zip(ids, values, strict=True) if n[3:] == t) for t in topics])
        assert np.mean(sides[-1]) == pytest.approx(values.mean(), abs=1e-12)
    expected = ttest_rel(sides[1], sides[0])
    change = np.subtract(sides[1], sides[0])
    assert contrast["p"] == pytest.approx(expected.pvalue, rel=1e-9)
    assert contrast["difference"] == pytest.approx(change.mean(), abs=1e-12)
    assert contrast["effect_size"] == pytest.approx(change.mean() / change.std(ddof=1), rel=1e-9)
    interval = expected.confidence_interval(0.95)
    assert (contrast["ci_low"], contrast["ci_high"]) == pytest.approx(tuple(interval), abs=1e-12)
    assert (contrast["units"], contrast["queries"]) == (TOPICS, VERSIONS - TOPICS // 4)
    assert contrast["p_corrected"] == correct(np.array([contrast["p"]]), Plan("student"), 1, True)[0]  # type: ignore[arg-type]


def test_what_is_done_is_not_done_again(
    finished: Path, recipe: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before, text = manifests(finished), (finished / "results.json").read_bytes()
    monkeypatch.setattr(running, "score_student", None)
    arguments = ["experiment", str(recipe), "--output", str(finished), "--device", "cpu"]
    assert main(arguments) == 0
    assert manifests(finished) == before
    assert (finished / "results.json").read_bytes() == text
    capsys.readouterr()
    assert main([*arguments, "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1].endswith("12 of 12 steps are done")
    assert "done   warm-up of mimo, seed 1" in lines


def without(finished: Path, output: Path, *patterns: str) -> Path:
    """A copy of an experiment that lacks some directories."""
    shutil.copytree(finished, output)
    for pattern in patterns:
        for path in output.glob(pattern):
            shutil.rmtree(path)
    return output


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


def test_killed_and_run_again_it_finds_the_same(
    finished: Path, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = without(finished, tmp_path / "out", "*/*/seed-2")
    (output / "results.json").unlink()

    def killing(function: Callable[..., Any], call: int) -> Callable[..., Any]:
        calls = 0

        def counted(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == call:
                raise Killed
            return function(*args, **kwargs)

        return counted

    # After half of a stage 2, and between a run and its scores.
    moments = ((trainer.Trainer, "compute_loss", 11), (fairness, "mrc", 1))
    for owner, name, call in moments:
        with monkeypatch.context() as patched:
            patched.setattr(owner, name, killing(getattr(owner, name), call))
            with pytest.raises(Killed):
                run(recipe, output)
        assert not (output / "results.json").exists()
    trained = manifests(output)
    assert len(trained) == 6
    found, said = run(recipe, output)
    assert without_times(found) == without_times(results(finished))
    assert trained.items() <= manifests(output).items()
    assert said[0].endswith("11 of 12 steps are done")


def test_part_of_the_grid(recipe: Path, finished: Path, tmp_path: Path) -> None:
    gone = ("systems/xlco-*", "*/*/seed-2", "systems/*/*/scores")
    output = without(finished, tmp_path / "out", *gone)
    found, said = run(recipe, output, only=("mimo",), seeds=1, keep_indexes=True)
    assert list(found["collections"]["test"]["systems"]) == ["mimo"]
    assert found["collections"]["test"]["contrasts"] == []
    assert found["collections"]["test"]["systems"]["mimo"]["values"]["ndcg@20"]["deviation"] is None
    assert "± –" in "\n".join(said)
    assert len(list(output.rglob("index/manifest.json"))) == 1
    assert scores(output, "mimo", 1)["measures"] == scores(finished, "mimo", 1)["measures"]


def test_a_changed_recipe_keeps_what_it_shares(recipe: Path, finished: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    shutil.copytree(finished, output)
    before = manifests(output)
    values = recipe_values()
    systems = {**values["systems"], "mimo": {"objective": "mimo", "lambda": 0.5}}
    changed = write_recipe(recipe.parent, "changed.yaml", systems=systems, seeds=[1], test="permutation")
    plan = plan_experiment(Experiment.read(changed), output, ExperimentOptions(device="cpu"))
    assert plan.splitlines() == [
        "done   new student, seed 1",
        "done   training of xlco, seed 1",
        "done   scores of xlco, seed 1 on test",
        "done   warm-up of mimo, seed 1",
        "to do  training of mimo, seed 1",
        "to do  scores of mimo, seed 1 on test",
        f"{output}: 4 of 6 steps are done",
    ]
    found, _ = run(changed, output)
    assert before.items() <= manifests(output).items()
    assert found["test"]["name"] == "permutation"
    assert found["collections"]["test"]["contrasts"][0]["seeds"] == [1]


def test_other_prompts_are_other_scores_of_the_same_students(
    recipe: Path, finished: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    shutil.copytree(finished, output)
    before = manifests(output)
    asked = {"query_prompt": "such such: ", "document_prompt": "", "dimension": 64}
    changed = write_recipe(recipe.parent, "prompts.yaml", encoder=asked, seeds=[1])
    _, said = run(changed, output, only=("xlco",), keep_indexes=True)
    assert said[0].endswith("2 of 3 steps are done")
    assert before.items() <= manifests(output).items()
    (manifest,) = output.glob("systems/xlco-*/seed-1/scores/test/index/manifest.json")
    plan = json.loads(manifest.read_text(encoding="utf-8"))["plan"]
    assert (plan["query_prompt"], plan["prompt"], plan["dimension"]) == ("such such: ", "", 64)
    assert scores(output, "xlco", 1)["encoding"] == asked
    assert scores(finished, "xlco", 1)["encoding"] == {}
    assert run(changed, output, only=("xlco",))[1][0].endswith("3 of 3 steps are done")
    wide = write_recipe(recipe.parent, "wide.yaml", encoder={"dimension": 129}, seeds=[1])
    with pytest.raises(UsageError, match=r"encoder\.dimension: new:tiny gives 128 dimensions"):
        run(wide, output)


@pytest.mark.slow
def test_a_smaller_student_is_made_once_for_all_seeds(recipe: Path, tmp_path: Path) -> None:
    student = {"checkpoint": str(plain_xlmr(tmp_path / "big")), "layers": 1, "vocabulary": "used"}
    systems = {"xlco": {"objective": "xlco"}}
    stage2 = {**recipe_values()["stage2"], "steps": 1}
    smaller = write_recipe(
        recipe.parent, "smaller.yaml", student=student, systems=systems, stage2=stage2, baseline=None
    )
    _, said = run(smaller, tmp_path / "out")
    assert sum("smaller student" in line.partition("(then")[0] for line in said) == 1
    (made,) = (tmp_path / "out" / "students").glob("*/*")
    cut = json.loads((made / "config.json").read_text(encoding="utf-8"))["mimo_cut"]
    assert (cut["layers"], cut["of_layers"], cut["vocabulary"]) == ([0], 2, "used")
    assert cut["tokens"] < cut["of_tokens"]
    trained = [json.loads(path.read_text(encoding="utf-8")) for path in manifests(tmp_path / "out")]
    assert [run["cut"] for run in trained] == [cut] * len(SEEDS)
    # Another vocabulary is another student.
    text = smaller.read_text(encoding="utf-8").replace("vocabulary: used", "vocabulary: 300")
    smaller.write_text(text, encoding="utf-8")
    plan = plan_experiment(Experiment.read(smaller), tmp_path / "out", ExperimentOptions(device="cpu"))
    assert "to do  smaller student" in plan
    assert "done" not in plan.rpartition("\n")[0]


def test_a_system_that_cannot_be_trained_is_a_result(
    recipe: Path, finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    shutil.copytree(finished, output)
    values = recipe_values()
    collapsing = {"learning_rate": 1e-3, "collapse_similarity": 0.0, "collapse_steps": 1}
    systems = {**values["systems"], "broken": {"objective": "infonce", "stage2": collapsing}}
    changed = write_recipe(recipe.parent, "broken.yaml", systems=systems)
    assert (
        main(["experiment", str(changed), "--output", str(output), "--device", "cpu", "--no-progress"]) == 1
    )
    said, error = capsys.readouterr()
    assert error.splitlines()[-1] == "mimo: 2 could not be trained: broken, seed 1; broken, seed 2"
    found = results(output)
    assert set(found["failed"]) == {"broken, seed 1", "broken, seed 2"}
    assert "the encoder has collapsed" in found["failed"]["broken, seed 1"]
    assert list(found["collections"]["test"]["systems"]) == list(SYSTEMS)
    assert "\nscores of broken, seed 1 on test: left out" in said
    table = (output / "results.md").read_text(encoding="utf-8")
    assert "not trained" in table
    assert any(line.startswith("| broken") and "–" in line for line in table.splitlines())


def test_a_teacher_that_cannot_be_had_shows_before_anything_is_trained(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = write_recipe(recipe.parent, "no-teacher.yaml", teacher={"checkpoint": str(tmp_path / "gone")})
    output = tmp_path / "out"
    assert main(["experiment", str(changed), "--output", str(output), "--device", "cpu"]) == 1
    assert f"{tmp_path}/gone" in capsys.readouterr().err
    assert [path.name for path in output.iterdir()] == ["recipe.yaml"]


def test_another_teacher_under_the_same_name_is_another(recipe: Path, finished: Path, tmp_path: Path) -> None:
    world, output = tmp_path / "world", tmp_path / "out"
    shutil.copytree(recipe.parent, world)
    shutil.copytree(finished, output)
    options = ExperimentOptions(device="cpu")
    experiment = Experiment.read(world / recipe.name)
    assert plan_experiment(experiment, output, options).endswith("12 of 12 steps are done")
    with (world / "teacher" / "README.md").open("a", encoding="utf-8") as file:
        file.write("changed")
    plan = plan_experiment(experiment, output, options).splitlines()
    assert "done   training of xlco, seed 1" in plan
    assert "to do  warm-up of mimo, seed 1" in plan


def test_an_index_of_other_documents_is_made_again(recipe: Path, finished: Path, tmp_path: Path) -> None:
    """As a kill, or --keep-indexes, leaves it when the collection is changed afterwards."""
    output = without(finished, tmp_path / "out", "systems/*/*/scores")
    run(recipe, output, only=("xlco",), seeds=1, keep_indexes=True)
    shutil.copytree(recipe.parent / "test", recipe.parent / "other")
    corpus = recipe.parent / "other" / "corpus.jsonl"
    lines = corpus.read_text(encoding="utf-8").splitlines(keepends=True)
    extra = json.dumps({"_id": "de:99", "text": passage("de", 3), "lang": "de"})
    corpus.write_text("".join([*lines, extra + "\n"]), encoding="utf-8")
    changed = write_recipe(recipe.parent, "other.yaml", collections={"test": "path:other"})
    found, _ = run(changed, output, only=("xlco",), seeds=1)
    content = found["collections"]["test"]
    assert content["systems"]["xlco"]["seeds"] == [1]
    assert content["fingerprint"] != results(finished)["collections"]["test"]["fingerprint"]


@pytest.mark.slow
def test_systems_with_another_anchor_and_other_teachers(recipe: Path, tmp_path: Path) -> None:
    """Each teacher has a store of its own; what does not differ is shared; all is there a second time."""
    world = recipe.parent
    sentence_transformer(world / "second", plain_xlmr(world / "second plain", seed=6, hidden=24))
    with PairsWriter(world / "pairs-de", anchor="de", parameters={}, source={}) as pairs:
        for lang, number in product(WORDS, range(TOPICS)):
            pairs.add(passage(lang, number), lang, passage("de", number))
    with TableWriter(world / "table-de", anchor="de", parameters={}, source={}) as table:
        for number in range(TOPICS):
            versions = {lang: (query(lang, number), passage(lang, number)) for lang in WORDS}
            table.add(f"q{number}", f"p{number}", versions)
    systems = {
        "en": {"objective": "mimo"},
        "de": {"objective": "mimo", "anchor": {"pairs": "pairs-de", "table": "table-de"}},
        "other": {"objective": "mimo", "teacher": {"checkpoint": "second"}},
        "progressive": {"objective": "mimo", "stage2": {"anchor_share": "0:1"}},
    }
    changed = {"anchor_teacher": {"checkpoint": "second"}, "systems": systems, "baseline": "en", "seeds": [1]}
    output = tmp_path / "out"
    found, _ = run(write_recipe(world, "anchors.yaml", **changed), output)
    (own,) = output.glob("teacher-store-*")
    # Distinct passages and queries, of both anchors; of the student's texts those that were drawn.
    assert len(TeacherStore.open(output / "teacher-store")) == 4 * TOPICS
    assert len(TeacherStore.open(own)) == 2 * TOPICS
    drawn = len(TeacherStore.open(output / "teacher-store" / ANCHOR))
    assert 0 < drawn < 2 * TOPICS * len(WORDS)
    assert len(list(output.glob("warm-ups/*"))) == 3
    values = found["collections"]["test"]["systems"]
    for system in systems:
        per_query = scores(output, system, 1)
        shown = values[system]["per_language"]
        for lang in WORDS:
            own_topics = [name.startswith(f"{lang}:") for name in per_query["query_ids"]]
            expected = np.array(per_query["per_query"]["ndcg@20"])[own_topics].mean()
            assert shown[lang]["mean"] == pytest.approx(expected, abs=1e-12)
            assert f"{expected:.4f} ± –" in (output / "results.md").read_text(encoding="utf-8")
        macro = np.mean([shown[lang]["mean"] for lang in WORDS])
        assert shown["macro"]["mean"] == pytest.approx(macro, abs=1e-12)
    assert len({values[system]["values"]["ndcg@20"]["mean"] for system in systems}) > 1
    _, said = run(world / "anchors.yaml", output)
    assert said[0].endswith("12 of 12 steps are done")
