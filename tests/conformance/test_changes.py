"""``secateurs compare``: every kind of change is found, named and told by the exit code."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from conformance.cli import main

Verdict = dict[str, Any]


def verdict(case: str, status: str = "passed", **others: Any) -> Verdict:
    canonical = status == "passed" if "divergence" not in others else False
    return {"case": f"op/{case}", "status": status, "canonical": canonical, "divergence": "",
            "message": ""} | others  # fmt: skip


def participant(name: str, version: str, *verdicts: Verdict) -> dict[str, Any]:
    about = {"name": name, "version": version}
    return {"name": name, "implementation": about, "verdicts": list(verdicts)}


def report(path: Path, *participants: dict[str, Any], suite: str = "1.0.0") -> str:
    document = {"schema": "secateurs-report-1", "suite": suite, "participants": participants}
    path.write_text(json.dumps(document), encoding="utf-8")
    return str(path)


OLD = (
    verdict("steady"), verdict("breaks"), verdict("heals", "failed", message="off"),
    verdict("awaited", "expected_failure", reason="known"), verdict("lost"),
    verdict("crashes", "failed"), verdict("drifts"), verdict("returns", divergence="eps=1e-6"),
    verdict("turns", divergence="eps=1e-6"), verdict("gone"), verdict("still", "failed"),
)  # fmt: skip
NEW = (
    verdict("steady"), verdict("breaks", "failed", canonical=True, message="grads[0]: got 2"),
    verdict("heals", canonical=False), verdict("awaited", canonical=False),
    verdict("lost", "unsupported", canonical=True, message="removed"), verdict("crashes", "crashed"),
    verdict("drifts", divergence="ties=all"), verdict("returns"),
    verdict("turns", divergence="eps=1e-8"), verdict("still", "failed", message="other words"),
    verdict("fresh", "failed"),
)  # fmt: skip


def compare(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(("compare", *arguments))
    out, err = capsys.readouterr()
    return code, out, err


def test_every_kind_of_change_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = report(tmp_path / "old.json", participant("lib", "1.0", *OLD))
    new = report(tmp_path / "new.json", participant("lib", "2.0", *NEW), suite="1.1.0")
    code, out, err = compare(capsys, old, new)
    assert (code, err) == (1, "")
    assert [line.rstrip() for line in out.splitlines()] == [
        "suite:  1.0.0 → 1.1.0",
        "lib 1.0 → lib 2.0",
        "  new failures:  1",
        "    op/breaks  passed → failed: grads[0]: got 2",
        "  fixed:  2",
        "    op/heals  failed → passed",
        "    op/awaited  expected failure → passed",
        "  fails otherwise:  1",
        "    op/crashes  failed → crashed",
        "  other status:  1",
        "    op/lost  passed → unsupported: removed",
        "  no longer canonical:  1",
        "    op/drifts  ties=all",
        "  now canonical:  1",
        "    op/returns  eps=1e-6",
        "  another divergence:  1",
        "    op/turns  eps=1e-6 → eps=1e-8",
        "  cases gone:  1",
        "    op/gone  passed",
        "  new cases:  1",
        "    op/fresh  failed",
        "",
    ]


def test_another_version_that_does_the_same_is_the_same(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = report(tmp_path / "old.json", participant("lib", "1.0", *OLD))
    new = report(tmp_path / "new.json", participant("lib", "2.0", *copy.deepcopy(OLD)))
    code, out, err = compare(capsys, old, new)
    assert (code, err) == (0, "")
    assert out == "lib 1.0 → lib 2.0\n  every case is as it was\n\n"


def test_participants_are_matched_by_name_or_as_the_only_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = participant("a", "1", *OLD[:2]), participant("b", "1", *OLD[:1])
    both = report(tmp_path / "both.json", one, two)
    swapped = report(tmp_path / "swapped.json", two, one)
    assert compare(capsys, both, swapped)[0] == 0
    code, out, _ = compare(capsys, both, report(tmp_path / "one.json", one))
    assert code == 1
    assert "b 1 → not in the report\n  cases gone:  1\n" in out
    renamed = report(tmp_path / "renamed.json", participant("c", "1", *OLD[:2]))
    code, out, _ = compare(capsys, report(tmp_path / "one.json", one), renamed)
    assert (code, out) == (0, "a 1 → c 1\n  every case is as it was\n\n")


def test_a_long_list_is_cut_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = participant("lib", "1", *(verdict(f"c{i}") for i in range(30)))
    bad = participant("lib", "1", *(verdict(f"c{i}", "failed", canonical=True) for i in range(30)))
    old, new = report(tmp_path / "old.json", good), report(tmp_path / "new.json", bad)
    _, out, _ = compare(capsys, old, new)
    assert (out.count("op/c"), "… and 10 more" in out) == (20, True)
    assert compare(capsys, old, new, "--limit", "0")[1].count("op/c") == 30


def test_what_cannot_be_compared_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good = report(tmp_path / "good.json", participant("lib", "1", *OLD))
    cut = tmp_path / "cut.json"
    cut.write_text(Path(good).read_text(encoding="utf-8")[:-20], encoding="utf-8")
    lines = tmp_path / "cut.jsonl"
    head = {"record": "header", "schema": "secateurs-lines-1", "suite": "1.0.0"}
    about = {"record": "participant", "name": "lib", "implementation": {"name": "", "version": ""}}
    line = {"record": "verdict", "participant": "lib"} | OLD[0]
    lines.write_text("".join(json.dumps(entry) + "\n" for entry in (head, about, line)))
    for arguments, words in (
        ((good, str(cut)), "cut.json: truncated or not JSON"),
        ((str(lines), good), "truncated: no footer after 1 verdicts; go on with: secateurs verify"),
        ((good, str(tmp_path / "none")), "No such file"),
        ((good,), "Missing argument"),
    ):
        code, out, err = compare(capsys, *arguments)
        assert (code, out, err.count("\n")) == (2, "", 1)
        assert words in err


def test_reports_of_the_command_itself_compare(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines, document = str(tmp_path / "r.jsonl"), str(tmp_path / "r.json")
    main(("verify", "refimpl", "--operation", "clip.value", "--jsonl", lines, "--json", document))
    capsys.readouterr()
    code, out, _ = compare(capsys, lines, document)
    assert code == 0
    assert "every case is as it was" in out
