"""What doctor says has to be true of this environment."""

from importlib.metadata import version

import pytest

from mimo_plugin.cli import main
from mimo_plugin.doctor import Finding, examine, text
from mimo_plugin.pyserini.java import find_java


def test_findings_are_this_environments() -> None:
    findings = {(finding.subject, finding.state): finding.found for finding in examine()}
    assert findings["torch", "ok"] == version("torch")
    java = find_java()
    assert findings["Java", "ok"].startswith(f"{java.version} from {java.source}, {java.home}")
    assert "verified" in findings["packaged:all-MiniLM-L6-v2", "ok"]


def test_a_missing_package_is_a_problem_with_its_mend(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("mimo_plugin.doctor.NEEDED", ("torch", "no-such-package"))
    assert main(["doctor"]) == 1
    out = capsys.readouterr().out
    assert "problem no-such-package" in out
    assert "-> pip install no-such-package" in out


def test_text_is_aligned() -> None:
    shown = text([Finding("a", "ok", "1"), Finding("long name", "note", "2", "do this")])
    assert shown.splitlines() == [
        "ok      a          1",
        "note    long name  2",
        "                   -> do this",
    ]
