"""Extras, constraints and the Dockerfile name what there is."""

import json
import os
import re
import subprocess
import sys
import tomllib
from fnmatch import fnmatch
from pathlib import Path

import pytest
from helpers.beir import documents, write_folder
from helpers.checkpoints import plain_xlmr
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from mimo_plugin.cli import COMMANDS
from mimo_plugin.encoder.options import MODULES
from mimo_plugin.training.start import PACKAGES

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
EXTRAS = {
    name: [Requirement(line) for line in lines] for name, lines in PROJECT["optional-dependencies"].items()
}
# For those who change the package, and former names.
NOT_FOR_USERS = {"dev", "docs", "test", "onnx", "openvino"}
PYTHONS = [
    text.rpartition(" ")[2]
    for text in PROJECT["classifiers"]
    if re.match(r"Programming Language :: Python :: 3\.", text)
]


def names(extra: str) -> set[str]:
    """Packages of an extra, and the extras that it consists of."""
    return {
        name
        for one in EXTRAS[extra]
        for name in (one.extras if canonicalize_name(one.name) == "mimo-plugin" else {one.name})
    }


def test_the_table_of_extras() -> None:
    page = (ROOT / "docs" / "quickstart.md").read_text(encoding="utf-8")
    (section,) = re.findall(r"^## What is in the extras\n(.*?)^## ", page, flags=re.M | re.S)
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in section.splitlines()
        if line.startswith("| `")
    ]
    table = {row[0].strip("`"): set(re.findall(r"`([\w-]+)`", row[1])) for row in rows}
    assert table == {extra: names(extra) for extra in EXTRAS if extra not in NOT_FOR_USERS}


def test_former_names_of_extras() -> None:
    assert names("onnx") == names("openvino") == {"fast"}


def test_what_code_asks_for_is_in_the_extra() -> None:
    assert {module for modules in MODULES.values() for module in modules} == names("fast")
    assert set(PACKAGES) == names("train")


# Runs commands as if the packages of the extras `train` and `fast` were not installed.
WITHOUT = """
import sys
from importlib import metadata
from mimo_plugin.encoder.options import MODULES
from mimo_plugin.training.start import PACKAGES

hidden = [*PACKAGES, *sum(MODULES.values(), ())]
sys.modules.update(dict.fromkeys(hidden))
from_name = metadata.Distribution.from_name

def without_hidden(name):
    if name in hidden:
        raise metadata.PackageNotFoundError(name)
    return from_name(name)

metadata.Distribution.from_name = without_hidden
from mimo_plugin.cli import main
for command in sys.argv[1:]:
    print(main(command.split()))
"""


@pytest.mark.slow
def test_without_extras_only_training_is_missing(tmp_path: Path) -> None:
    queries = [{"_id": "q1", "text": "Suche", "lang": "de"}]
    write_folder(tmp_path / "c", documents(6), queries, {"q1": {"d0": 1}})
    plain_xlmr(tmp_path / "m")
    quiet = "--no-progress"
    commands = [
        f"index path:c --encoder m --device cpu --output ix {quiet}",
        f"search ix --topics path:c --device cpu --output x.trec {quiet}",
        "evaluate x.trec --qrels path:c --measures ndcg@5",
        f"train stage1 --student m --teacher m --pairs none --output s1 {quiet}",
        f"encode path:c --encoder m --backend openvino --output v {quiet}",
    ]
    environment = {**os.environ, "MIMO_BACKEND": "", "XDG_CACHE_HOME": str(tmp_path / "caches")}
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, *commands],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    statuses = [line for line in done.stdout.splitlines() if line in ("0", "1", "2")]
    assert statuses == ["0", "0", "0", "1", "1"], done.stderr
    assert "training needs accelerate, tensorboard, not installed here: pip install 'mimo-plugin[train]'" in (
        done.stderr
    )
    assert "--backend openvino needs openvino, not installed here: pip install 'mimo-plugin[fast]'" in (
        done.stderr
    )


def test_extras_that_are_named_anywhere() -> None:
    pages = [ROOT / "README.md", ROOT / "Dockerfile", *(ROOT / "docs").glob("*.md")]
    for path in [*pages, *(ROOT / "mimo_plugin").rglob("*.py"), *(ROOT / "tests").rglob("*.py")]:
        for found in re.findall(r"mimo-plugin\[([\w,-]+)\]", path.read_text(encoding="utf-8")):
            assert set(found.split(",")) <= set(EXTRAS), path


@pytest.mark.parametrize("python", PYTHONS)
def test_a_tested_set_for_each_python(python: str) -> None:
    """The versions that the requirements allow, of everything that is installed for the tests."""
    assert python in SpecifierSet(PROJECT["requires-python"])
    lines = (ROOT / "constraints" / f"py{python.replace('.', '')}.txt").read_text().splitlines()
    pins = {
        canonicalize_name(name): pin for name, pin in (line.split("==") for line in lines if line[:1] != "#")
    }
    wanted = [Requirement(line) for line in PROJECT["dependencies"]]
    for extra in names("test") & set(EXTRAS) | {"test"}:
        wanted += EXTRAS[extra]
    for one in wanted:
        if canonicalize_name(one.name) != "mimo-plugin":
            assert pins[canonicalize_name(one.name)] in one.specifier, one
    assert pins["pyserini"] not in ("2.0.0", "2.4.0")


def test_the_dockerfile() -> None:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    steps = [tuple(line.split(maxsplit=1)) for line in text.splitlines() if re.match(r"[A-Z]+ ", line)]
    (base,) = (rest for step, rest in steps if step == "FROM")
    python = re.fullmatch(r"python:(3\.\d+)-slim", base)
    assert python is not None
    assert python[1] in PYTHONS
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"]
    copied: set[str] = set()
    for step, rest in steps:
        if step == "COPY":
            *sources, _ = rest.split()
            copied.update(sources)
            for source in sources:
                assert (ROOT / source).exists(), source
                assert source.split("/")[0] in kept, source
        for path in re.findall(r"--constraint (\S+)", rest) if step == "RUN" else ():
            assert path == f"constraints/py{python[1].replace('.', '')}.txt"
            assert path in copied
    # What the build reads.
    build = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]["build"]
    wheel = build["targets"]["wheel"]
    needed = {PROJECT["readme"], *PROJECT["license-files"], *wheel["packages"], *wheel["force-include"]}
    assert {"pyproject.toml", *needed} <= copied
    assert all(any(fnmatch(name, kept_name) for kept_name in kept) for name in needed)
    (extras,) = re.findall(r"'\.\[([\w,]+)\]'", text)
    assert set(extras.split(",")) <= set(EXTRAS)
    places = {step: (number, rest) for number, (step, rest) in enumerate(steps)}
    assert places["USER"][1] not in ("root", "0")
    assert max(number for number, (step, _) in enumerate(steps) if step == "RUN") < places["USER"][0]
    (script,) = json.loads(places["ENTRYPOINT"][1])
    assert script in PROJECT["scripts"]
    assert set(json.loads(places["CMD"][1])) <= set(COMMANDS)
