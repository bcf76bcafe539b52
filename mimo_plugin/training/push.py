"""A student on the Hugging Face hub: its files, and a card with its scores."""

import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

from mimo_plugin.core.errors import ArtifactError, EnvironmentProblem, Problems, UsageError
from mimo_plugin.core.files import size_text, writing
from mimo_plugin.core.option import Option

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, ModelCardData

    from mimo_plugin.evaluation.results import EvaluationResult, SystemResult

_CARD = "README.md"
# Files of a checkpoint; anything else, such as optimiser states, stays here. The last is `trained_on.FILE`.
_FILES = re.compile(
    r"[\w.-]+\.safetensors|[\w.-]+\.safetensors\.index\.json|README\.md|LICENSE(\.\w+)?"
    r"|(generation_|preprocessor_|processor_|tokenizer_|sentence_\w+_|router_)?config\.json"
    r"|config_sentence_transformers\.json|modules\.json|tokenizer\.json|special_tokens_map\.json"
    r"|added_tokens\.json|vocab\.(json|txt)|merges\.txt|[\w.-]+\.model|chat_template\.jinja"
    r"|training_texts\.npz"
)


@dataclass(frozen=True)
class PushOptions:
    """What is uploaded, and where to."""

    results: Annotated[
        Sequence[str],
        Option(
            "Scores for the card: files of `mimo evaluate --json` or `mimo reproduce`, with the run's name "
            "where a file has several.",
            metavar="[NAME=]FILE...",
        ),
    ] = ()
    license: Annotated[
        str | None,
        Option("Licence of the weights, e.g. mit, apache-2.0.  [default: the base model's]", metavar="ID"),
    ] = None
    private: Annotated[bool, Option("Make the repository private, if it is new.")] = False
    revision: Annotated[str | None, Option("Branch to upload to.  [default: main]", metavar="BRANCH")] = None
    message: Annotated[str | None, Option("Message of the commit.", metavar="TEXT")] = None
    dry_run: Annotated[
        str | None,
        Option(
            "Upload nothing: list what would go, or write it to DIRECTORY. Needs no network and no token.",
            metavar="[DIRECTORY]",
            settings={"is_flag": False, "flag_value": ""},
        ),
    ] = None


@dataclass(frozen=True)
class Pushed:
    """What was uploaded, or would be; `str` says it.

    Attributes:
        files: path in the repository -> bytes.
        left_out: files in the directory that no checkpoint needs.
        card: text of the card.
        url: of the commit; None after a dry run.
    """

    repo: str
    files: Mapping[str, int]
    left_out: Sequence[str]
    card: str
    url: str | None
    warnings: Sequence[str] = ()

    def __str__(self) -> str:
        what = f"{self.repo}: would be uploaded" if self.url is None else f"{self.url}: uploaded"
        lines = [f"{what}, {size_text(sum(self.files.values()))}"]
        lines += [f"  {size_text(size):>10}  {name}" for name, size in self.files.items()]
        if self.left_out:
            lines.append(f"  left out: {', '.join(self.left_out)}")
        return "\n".join(lines)


def push(student: str | Path, repo: str, options: PushOptions | None = None, **changes: Any) -> Pushed:
    """Uploads a student to the Hugging Face hub, in one commit.

    Only weights in safetensors, tokenizer, configuration and card are uploaded. The card is the student's
    own, under the name of the repository, with the scores in `results`; the student's directory does not
    change.

    >>> push("student/stage2", "me/student", results=["scores.json"], dry_run="")  # doctest: +SKIP

    Args:
        student: output directory of a finished run, or a sentence-transformers directory.
        repo: OWNER/NAME; it is made if it does not exist.
        changes: fields of `PushOptions`.

    Raises:
        UsageError, ArtifactError, ModelError: with all problems of student, name and results.
        EnvironmentProblem: there is no token, no network, or the hub refuses; before anything is uploaded
            unless the connection is lost.
    """
    options = replace(options or PushOptions(), **changes)
    place = Path(student)
    problems = Problems()
    with problems.collect():
        _check_repo(repo)
    with problems.collect():
        place = _checkpoint(place)
    results: list[EvalResult] = []
    if not problems:
        for spec in options.results:
            with problems.collect():
                results += _eval_results(spec, place)
    if options.dry_run is None:
        problems.extend(_offline(), EnvironmentProblem)
    elif options.dry_run and Path(options.dry_run).exists():
        problems.add(f"--dry-run {options.dry_run} exists, expected the name of a new directory", UsageError)
    problems.raise_any()
    card, warnings = _card(place, repo, options, results)
    files = dict(_files(place))
    sizes = {name: path.stat().st_size for name, path in files.items()} | {_CARD: len(card.encode())}
    there = (path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file())
    left_out = sorted(set(there) - set(files))
    files.pop(_CARD, None)
    url = None
    if options.dry_run is None:
        url = _upload(repo, files, card, options)
    elif options.dry_run:
        _write(Path(options.dry_run), files, card)
    return Pushed(repo, dict(sorted(sizes.items())), left_out, card, url, warnings)


def _check_repo(repo: str) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise UsageError(f"{repo!r} is no name of a repository: {error}") from error
    if "/" not in repo:
        raise UsageError(f"{repo!r} names no owner, expected OWNER/NAME such as me/{repo}")


def _checkpoint(student: Path) -> Path:
    """The directory of a student's checkpoint, verified if it is a run's."""
    from mimo_plugin.encoder.checkpoint import check_files
    from mimo_plugin.encoder.packaged import MODEL
    from mimo_plugin.training.run import RECIPE, checkpoint_of
    from mimo_plugin.training.stages import STAGE2

    if (student / STAGE2 / RECIPE).is_file():
        raise UsageError(f"{student} holds the runs of two stages: name one, such as {student / STAGE2}")
    if not student.is_dir():
        raise ArtifactError(f"{student}: no such directory, expected a student")
    run = student.absolute().parent
    place = Path(checkpoint_of(str(run if student.name == MODEL and (run / RECIPE).exists() else student)))
    check_files(str(place), str(student))
    return place


def _files(checkpoint: Path) -> Iterator[tuple[str, Path]]:
    """Path in the repository -> file, of a checkpoint and its modules."""
    folders = {checkpoint}
    with suppress(OSError, ValueError, TypeError, LookupError):
        modules = json.loads((checkpoint / "modules.json").read_bytes())
        folders |= {checkpoint / str(module["path"]) for module in modules}
    for path in sorted(checkpoint.rglob("*")):
        if path.parent in folders and path.is_file() and _FILES.fullmatch(path.name):
            yield path.relative_to(checkpoint).as_posix(), path


def _card(
    checkpoint: Path, repo: str, options: PushOptions, results: "list[EvalResult]"
) -> tuple[str, list[str]]:
    """The card's text, and warnings about what it lacks."""
    from huggingface_hub import ModelCard as HubCard

    from mimo_plugin.training.record import ModelCard, render_card

    own = checkpoint / _CARD
    if own.is_file():
        text = own.read_text(encoding="utf-8-sig")
    else:
        from mimo_plugin.encoder.checkpoint import load_model

        text = render_card(load_model(str(checkpoint), str(checkpoint), "cpu"), repo, ModelCard())
    try:
        card = HubCard(text)
    except Exception as error:  # of the YAML parser or the hub's checks
        said = " ".join(str(error).split())
        raise ArtifactError(f"{own}: its metadata are not valid ({said}), expected a model card") from error
    if title := re.search(r"^# (\S+)$", card.text, re.MULTILINE):
        # The name that a card has from `mimo train` is that of the directory.
        name = rf'(^# |SentenceTransformer\("|--encoder ){re.escape(title[1])}(?=["\s])'
        card.text = re.sub(name, rf"\g<1>{repo}", card.text, flags=re.MULTILINE)
    data = cast("ModelCardData", card.data)
    data.license = options.license or data.license
    data.library_name = data.library_name or "sentence-transformers"
    if results:
        data.model_name = repo.rpartition("/")[2]
        data.eval_results = [*(data.eval_results or ()), *results]
        card.text = f"{card.text.rstrip()}\n\n{_table(results)}"
    warnings = []
    if not data.license:
        warnings.append("the card names no licence, and nobody may use the model without: give --license")
    return str(card), warnings


def _table(results: "Sequence[EvalResult]") -> str:
    rows = [
        f"| {one.dataset_name} | {one.dataset_config or ''} | {one.metric_name} | {one.metric_value:.4f} |"
        for one in results
    ]
    head = ["## Evaluation", "", "| data | language | measure | value |", "| --- | --- | --- | --- |"]
    return "\n".join([*head, *rows, ""])


MACRO = "macro average"


def _eval_results(spec: str, checkpoint: Path) -> "list[EvalResult]":
    """The scores of a student in `[NAME=]FILE`, as the hub has them: per language, and their macro average.

    Raises:
        ArtifactError: the file holds no results.
        UsageError: it does not say which run is the student's, or that run is another model's.
    """
    from huggingface_hub import EvalResult

    from mimo_plugin.evaluation.results import FORMAT, parse_results
    from mimo_plugin.evaluation.runs import run_files
    from mimo_plugin.training.record import hub_dataset

    name, path = run_files([spec])[0]
    content = _json(path)
    systems: Mapping[str, SystemResult] = {}
    if content.get("format") == FORMAT:
        benchmark = parse_results(content)
        found, systems, title = benchmark.evaluation, benchmark.systems, benchmark.config.title
        collections, kind = benchmark.config.collections, benchmark.config.name
    else:
        found = _evaluation(content, path)
        collections = found.collections
        title = kind = ", ".join(map(_shown, collections)) or path.stem
    run = found.runs[_run(found, systems, None if path == Path(spec) else name, path, checkpoint)]
    several = len(run.per_language) > 1
    scores = {language or None: values for language, values in run.per_language.items()}
    return [
        EvalResult(
            task_type="information-retrieval",
            task_name="Information Retrieval",
            dataset_type=next(filter(None, map(hub_dataset, collections)), kind),
            dataset_name=title,
            dataset_config=part,
            metric_type=measure.replace("@", "_at_"),
            metric_name=measure,
            metric_value=round(value, 5),
        )
        for part, values in (({MACRO: run.macro} if several else {}) | scores).items()
        for measure in found.tested
        if (value := values[measure]) is not None
    ]


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read: {error.strerror}, expected results as JSON") from error
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{path} is not JSON: {error}, expected results") from error
    if not isinstance(content, dict):
        raise ArtifactError(f"{path} holds no JSON object, expected results")
    return content


def _evaluation(content: dict[str, Any], path: Path) -> "EvaluationResult":
    from pydantic import ValidationError

    from mimo_plugin.core.config import field_faults
    from mimo_plugin.evaluation.results import EvaluationResult

    try:
        return EvaluationResult.model_validate(content)
    except ValidationError as error:
        _, fault = next(field_faults(error, EvaluationResult, content))
        raise ArtifactError(
            f"{path} holds no results: {fault}; expected a file of `mimo evaluate --json` or results.json"
        ) from error


def _run(
    found: "EvaluationResult",
    systems: "Mapping[str, SystemResult]",
    name: str | None,
    path: Path,
    checkpoint: Path,
) -> str:
    """The name of the student's run. Results of `mimo reproduce` know the encoder of each system."""
    if name is not None and name not in found.runs:
        raise UsageError(f"--results: {path} has no run {name!r}, expected one of {', '.join(found.runs)}")
    known = {run: system.fingerprint for run, system in systems.items() if system.fingerprint}
    if known:
        from mimo_plugin.encoder.checkpoint import load_model
        from mimo_plugin.encoder.fingerprint import fingerprint

        own = fingerprint(load_model(str(checkpoint), str(checkpoint), "cpu"))
        of_student = [run for run, encoder in known.items() if encoder == own]
        if name is None and len(of_student) == 1:
            return of_student[0]
        if (name is None and not of_student) or (name in known and name not in of_student):
            raise UsageError(
                f"--results: {name or 'no system'} in {path} is another model than {checkpoint} by its "
                "fingerprint, expected scores of this student"
            )
    if name is None and len(found.runs) == 1:
        return next(iter(found.runs))
    if name is None:
        raise UsageError(
            f"--results: {path} has the runs {', '.join(found.runs)}: name the student's, for example "
            f"{next(iter(found.runs))}={path}"
        )
    return name


def _shown(collection: str) -> str:
    """A collection's name, of a folder without its place."""
    return Path(collection).name if collection.startswith("path:") else collection


def _offline() -> Iterator[str]:
    """Why nothing can be uploaded from here."""
    from huggingface_hub import get_token

    from mimo_plugin.core.environment import hub_problem

    if get_token() is None:
        yield "there is no token of the hub: `hf auth login`, or set HF_TOKEN (--dry-run needs none)"
    if problem := hub_problem():
        yield f"nothing can be uploaded: {problem} (--dry-run needs no network)"


def _upload(repo: str, files: Mapping[str, Path], card: str, options: PushOptions) -> str:
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi()
    contents: dict[str, Path | bytes] = {**files, _CARD: card.encode()}
    done = "nothing was uploaded"
    try:
        api.whoami()
        api.create_repo(repo, private=options.private or None, exist_ok=True)
        done = "run the command again, files that are there are not sent twice"
        if options.revision is not None:
            api.create_branch(repo, branch=options.revision, exist_ok=True)
        commit = api.create_commit(
            repo,
            [CommitOperationAdd(name, content) for name, content in contents.items()],
            commit_message=options.message or "Upload the student",
            revision=options.revision,
        )
    except Exception as error:  # of the hub's client and its transport
        said = " ".join(str(error).split())[:500]
        raise EnvironmentProblem(f"{repo}: {type(error).__name__}: {said}; {done}") from error
    return str(commit.commit_url)


def _write(directory: Path, files: Mapping[str, Path], card: str) -> None:
    """Writes what would go; the directory appears when it is complete."""
    beside = directory.with_name(f".{directory.name}.tmp")
    try:
        with writing(directory):
            for name, path in files.items():
                (beside / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, beside / name)
            (beside / _CARD).write_text(card, encoding="utf-8")
            beside.rename(directory)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
