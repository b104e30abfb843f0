"""Renewing expected failures: what is kept, narrowed, closed, removed and added after a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from conformance import expected, renewal
from conformance.cases import Case
from conformance.cli import main
from conformance.diagnosis import Diagnosis
from conformance.expected import ExpectationsError
from conformance.judge import Verdict
from conformance.protocol import Implementation
from conformance.renewal import renew
from conformance.runner import Run

OPERATION = "clip.norm"


def run(version: str = "2.14.0+cpu", **statuses: str) -> Run:
    """Return a run of cases named with ``_`` for ``-``."""
    found = Run("lib", Implementation("lib", version, "", ""))
    for name, status in statuses.items():
        case = Case(OPERATION, name.replace("_", "-"), (), (), {}, {})
        message = "" if status == "passed" else "grads[0]: got 1, expected 2"
        found.verdicts.append(Verdict(case, status, message=message))  # type: ignore[arg-type]
    return found


def entry(case: str, versions: str = ">=2.6", reason: str = "because") -> str:
    return (
        f'[[expected]]\ncase = "clip.norm/{case}"\nreason = "{reason}"\n'
        f'link = "https://example.org/1"\nversions = "{versions}"\n'
    )


HEAD = "# measured with 2.6\n\n"


def test_a_file_that_still_holds_stays_as_it_is_to_the_letter() -> None:
    text = (
        HEAD
        + entry("a-*")
        + "\n# about b\n"
        + entry("b-[fb]*").replace("because", "b's own")
        + "\n"
    )
    text = text.rstrip("\n") + "\n"
    found = renew(
        text, run(a_f32="failed", a_f64="errored", b_f32="expected_failure", c_f32="passed")
    )
    assert found.text == text
    assert (found.kept, found.added, found.removed) == (2, [], [])


def test_of_several_dtypes_that_pass_now_only_those_that_fail_stay() -> None:
    found = renew(HEAD + entry("a-*"), run(a_f32="failed", a_f64="unexpected_pass"))
    assert found.narrowed == ["clip.norm/a-* → clip.norm/a-f32"]
    closed, narrow = expected.parse(found.text, "x")
    assert (closed.case, str(closed.versions)) == ("clip.norm/a-*", "<2.14.0,>=2.6")
    assert (narrow.case, str(narrow.versions)) == ("clip.norm/a-f32", ">=2.14")
    assert narrow.reason == "because"
    assert narrow.evidence == "https://example.org/1"


def test_an_entry_of_this_version_alone_is_narrowed_in_place() -> None:
    (narrow,) = expected.parse(
        renew(entry("a-*", ">=2.14,<3"), run(a_f32="failed", a_f64="passed")).text, "x"
    )
    assert (narrow.case, str(narrow.versions)) == ("clip.norm/a-f32", "<3,>=2.14")


def test_what_fails_no_more_is_closed_or_removed() -> None:
    text = entry("a-*", ">=2.6") + "\n" + entry("b-*", ">=2.14")
    found = renew(text, run(a_f32="passed", b_f32="passed"))
    assert (found.closed, found.removed) == (["clip.norm/a-*"], ["clip.norm/b-*"])
    (closed,) = expected.parse(found.text, "x")
    assert str(closed.versions) == "<2.14.0,>=2.6"


def test_entries_of_other_versions_and_operations_are_left_alone() -> None:
    text = entry("a-*", "<2") + "\n" + entry("b-*").replace("clip.norm/", "clip.value/")
    found = renew(text, run(a_f32="passed"))
    assert (found.text, found.kept) == (text, 2)


def test_what_is_new_is_grouped_by_slug_and_asks_for_its_reason(tmp_path: Path) -> None:
    found = renew("", run(a_f32="failed", a_f64="failed", b_f32="failed", b_f64="passed"))
    assert found.added == ["clip.norm/a-*", "clip.norm/b-f32"]
    assert found.unwritten == 2
    first, _ = expected.parse(found.text, "x")
    assert first.evidence == "a-f32: grads[0]: got 1, expected 2"
    assert str(first.versions) == ">=2.14"
    (tmp_path / "lib.toml").write_text(found.text)
    with pytest.raises(
        ExpectationsError, match=r"lib\.toml: entry 1: .*a-\* is still to be written"
    ):
        expected.read("lib", tmp_path)


def test_the_diagnosis_gives_the_reason_if_it_explains_everything() -> None:
    asked = run(a_f32="failed")
    asked.diagnoses[OPERATION] = Diagnosis(OPERATION, "behaves like X", 1, 1)
    (added,) = expected.parse(renew("", asked).text, "x")
    assert added.reason == "behaves like X"
    asked.diagnoses[OPERATION] = Diagnosis(OPERATION, "behaves like X in 1 of 2", 2, 1)
    assert renew("", asked).unwritten == 1


def test_a_missing_refusal_gives_its_own_reason() -> None:
    asked = run(a_f32="failed")
    asked.verdicts[0].message = 'must be refused: ord must be > 0, got "x"\\'
    (added,) = expected.parse(renew("", asked).text, "x")
    assert added.reason == 'it does not refuse: ord must be > 0, got "x"\\'


def test_a_slug_that_begins_another_does_not_cover_what_passes() -> None:
    found = list(
        renewal.cover(["o/nan-f32", "o/nan-f64"], ["o/nan-two-f32"]),
    )
    assert found == ["o/nan-f32", "o/nan-f64"]


@pytest.mark.parametrize(
    "statuses",
    [
        {"a_f32": "failed", "a_f64": "passed", "b_f16": "crashed", "c_f32": "passed"},
        {"a_f32": "passed", "a_f64": "passed", "b_f16": "unsupported", "c_f32": "timed_out"},
        {"a_f32": "failed", "a_f64": "failed", "b_f16": "passed", "c_f32": "passed"},
    ],
)
def test_a_renewed_file_judges_the_run_as_it_came_out(statuses: dict[str, Any]) -> None:
    text = entry("a-*") + "\n" + entry("[bc]-*") + "\n" + entry("c-f32")
    asked = run(**statuses)
    renewed = renew(text, asked).text
    assert renewal.strict(expected.parse(renewed, "x"), asked) == []
    assert renew(renewed, asked).text == renewed


def report(path: Path, asked: Run) -> Path:
    values = {"schema": "secateurs-report-1", "suite": "1", "participants": [asked.as_json()]}
    path.write_text(json.dumps(values))
    return path


def test_the_command_shows_the_difference_and_writes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(expected, "FOLDER", tmp_path)
    listed = tmp_path / "lib.toml"
    listed.write_text(entry("a-*", ">=2.14") + "\n" + entry("gone-*", ">=2.14"))
    given = str(
        report(tmp_path / "r.json", run(a_f32="failed", new_f32="failed", gone_f32="passed"))
    )
    assert main(["expectations", "lib", "--from", given]) == 1
    out = capsys.readouterr().out
    assert '-case = "clip.norm/gone-*"' in out
    assert '+case = "clip.norm/new-*"' in out
    assert '-case = "clip.norm/a-*"' not in out
    assert "1 of them need a reason" in out
    assert "gone-" in listed.read_text()
    assert main(["expectations", "lib", "--from", given, "--write"]) == 0
    assert "gone-" not in listed.read_text()
    assert main(["expectations", "lib", "--from", given]) == 0
    assert main(["expectations", "lab", "--from", given]) == 2
    assert "did you mean lib" in capsys.readouterr().err
