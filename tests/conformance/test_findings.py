"""FINDINGS.md: made from the records, true of them, and its lines print what it says."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from conformance import findings, recorded
from conformance.expected import ExpectationsError
from conformance.findings import Finding
from conformance.operations import names
from conformance.recorded import Record, Tally

ENTRY = """
[[finding]]
title = "it loses | [something]"
kind = "loses the gradient: zero"
case = "clip.norm/square-overflow-f32"
expected = "2"
happens = "It is 1."
code = "print(1)"
prints = "1"
"""


def record(name: str = "lib", **changes: object) -> Record:
    keys = ("name", "version", "language", "language_version", "homepage")
    tally = Tally(2, {"passed": 2}, 2, 0.0)
    for key, value in changes.items():
        setattr(tally, key, value)
    return Record(name, "1", dict.fromkeys(keys, "") | {"version": "1.5"}, {"clip.norm": tally})


LOST = {"norm=naive": {"square-overflow-f32": "NaN/inf"}}


def test_the_page_tells_of_each_finding_and_of_every_known_failure(tmp_path: Path) -> None:
    (tmp_path / "lib.toml").write_text(ENTRY)
    failing = {"a-f32": {"status": "expected_failure", "reason": "b|c", "message": ""}}
    page = findings.page({"lib": record(diverging=LOST, failing=failing)}, tmp_path)
    assert "| lib 1.5 | [it loses \\| \\[something\\]](#lib-it-loses--something) |" in page
    assert "### lib: it loses | [something]\n" in page
    assert "```python\nprint(1)\n```\n\nprints\n\n```\n1\n```" in page
    assert "Public report: none is known to us." in page
    assert "| `clip.norm` | 1 | b\\|c | `a-f32` |" in page
    assert "The suite's rule: C" in page


def test_a_finding_that_is_over_must_leave(tmp_path: Path) -> None:
    (tmp_path / "lib.toml").write_text(ENTRY)
    with pytest.raises(ExpectationsError, match="canonical on record"):
        findings.page({"lib": record()}, tmp_path)
    with pytest.raises(ExpectationsError, match="no record of a run"):
        findings.page({}, tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('kind = "loses the gradient: zero"', 'kind = "odd"', "kind must be one of"),
        ('expected = "2"', "", "expected is missing"),
        ('expected = "2"', 'expected = "2"\nseen = "x"', "unknown key 'seen'"),
        ("loses the gradient: zero", "contradicts its documentation", "documentation that"),
        ('code = "print(1)"', 'code = """' + "x = 1\n" * 11 + 'x"""', "more than 10 lines"),
        ("[[finding]]", "[[finding", "not valid TOML"),
    ],
)
def test_of_a_file_that_is_not_as_it_must_be_one_line_is_said(
    old: str, new: str, words: str, tmp_path: Path
) -> None:
    (tmp_path / "lib.toml").write_text(ENTRY.replace(old, new))
    with pytest.raises(ExpectationsError, match=words):
        findings.read("lib", tmp_path)


def test_the_page_in_the_repository_is_the_one_that_the_records_give() -> None:
    assert findings.PAGE.read_text(encoding="utf-8") == findings.page(recorded.shipped()), (
        "write it anew: python -m conformance.findings"
    )


@pytest.mark.parametrize("library", findings.libraries())
def test_the_lines_of_a_finding_call_the_library_only(library: str) -> None:
    for finding in findings.read(library):
        assert finding.case.partition("/")[0] in names()
        assert "secateurs" not in finding.code
        if finding.language != "python":
            continue
        for node in ast.walk(ast.parse(finding.code)):
            if isinstance(node, ast.Import | ast.ImportFrom):
                module = getattr(node, "module", None) or node.names[0].name
                assert module.partition(".")[0] not in ("conformance", "adapters", "refimpl")


def test_the_lines_are_run_as_a_user_would(tmp_path: Path) -> None:
    import sys

    finding = Finding("lib", "t", "k", "c", "e", "h", "print('a'); print(2)", "a\n2")
    assert findings.output(finding, [sys.executable, "-c"]) == finding.prints
    wrong = Finding("lib", "t", "k", "c", "e", "h", "1 / 0", "")
    assert "ZeroDivisionError" in findings.output(wrong, [sys.executable, "-c"])


@pytest.mark.long
@pytest.mark.parametrize("library", findings.libraries())
def test_the_lines_print_what_is_written(library: str) -> None:
    command, folder = findings.interpreter(library)
    kept = recorded.shipped()[library]
    if not command:
        pytest.skip(f"{library} {kept.about['version']} is not installed here")
    for finding in findings.read(library):
        assert findings.output(finding, command, folder) == finding.prints, finding.title
