"""JSON lines and JUnit XML; an interrupted run keeps what it had and is resumed."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as xml

import pytest

from conformance import expected, junit, participants, records, runner
from conformance.cli import main
from conformance.compare import Difference
from conformance.judge import Status, Verdict
from conformance.protocol import Implementation
from conformance.runner import Run, select

ROOT = Path(__file__).resolve().parents[2]
HARNESSES = Path(__file__).parent / "harnesses"
PLAIN = shlex.join([sys.executable, str(HARNESSES / "plain.py"), "per-tensor"])
BASIC = ("--jobs", "1", "--operation", "clip.global_norm", "--case", "two-tensors-f64", "--case",
         "two-tensors-f32", "--case", "just-above-f32", "--case", "two-tensors-bf16",
         "--case", "one-above-one-below-f32", "--case", "one-above-one-below-f64")  # fmt: skip


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(arguments)
    out, err = capsys.readouterr()
    return code, out, err


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def write(path: Path, entries: list[dict[str, Any]], rest: str = "") -> None:
    text = "".join(json.dumps(entry) + "\n" for entry in entries)
    path.write_text(text + rest, encoding="utf-8")


@pytest.fixture
def whole(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """A run with a planted mistake, as JSON lines; ``whole.json`` beside it holds the same as JSON."""
    path = tmp_path / "whole.jsonl"
    json_file = str(path.with_suffix(".json"))
    code, _, err = call(
        capsys, "verify", "--command", PLAIN, *BASIC, "--jsonl", str(path), "--json", json_file
    )
    assert (code, err) == (1, "")
    return path


def timeless(report: Any) -> Any:
    if isinstance(report, dict):
        return {name: timeless(value) for name, value in report.items() if name != "seconds"}
    return [timeless(value) for value in report] if isinstance(report, list) else report


def test_json_lines_have_a_header_a_line_per_verdict_and_a_footer(whole: Path) -> None:
    entries = lines(whole)
    kinds = [entry["record"] for entry in entries]
    assert kinds == ["header", "participant", *["verdict"] * 6, "footer"]
    assert entries[0]["schema"] == "secateurs-lines-1"
    assert entries[0]["asked"]["cases"] == list(BASIC[5::2])
    statuses = {entry["case"].partition("/")[2]: entry["status"] for entry in entries[2:-1]}
    assert statuses == {
        "two-tensors-f64": "failed", "two-tensors-f32": "failed", "just-above-f32": "passed",
        "two-tensors-bf16": "unsupported", "one-above-one-below-f32": "failed",
        "one-above-one-below-f64": "failed",
    }  # fmt: skip
    footer = entries[-1]
    assert sum(n for k, n in footer["summary"].items() if k != "canonical") == 6
    assert footer["participants"][0]["summary"]["unsupported"] == 1


def test_both_formats_are_read_as_the_same_report(whole: Path) -> None:
    as_lines, as_json = records.read(whole), records.read(whole.with_suffix(".json"))
    assert as_lines.complete
    for participant in as_lines.participants:
        for verdict in participant["verdicts"]:
            verdict.pop("got", None)
    assert timeless(as_lines.participants) == timeless(as_json.participants)
    assert (as_lines.suite, as_lines.count) == (as_json.suite, 6)


@pytest.mark.parametrize("had", [0, 1, 4, 6])
def test_a_resumed_run_asks_only_the_rest_and_ends_the_same(
    had: int, whole: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = lines(whole)
    again = whole.with_suffix(".again.json")
    write(whole, entries[: 1 + (had > 0) + had], '{"record": "verd')
    assert not records.read(whole).complete
    asked = []
    ask = runner._ask

    def asking(process: Any, implementation: Any, case: Any) -> Verdict:
        asked.append(case.full_id)
        return ask(process, implementation, case)

    monkeypatch.setattr(runner, "_ask", asking)
    code, _, err = call(
        capsys, "verify", "--jobs", "1", "--resume", str(whole), "--json", str(again)
    )
    assert (code, err) == (1, "")
    assert asked == [entry["case"] for entry in entries[2 + had : -1]]
    first = json.loads(whole.with_suffix(".json").read_text(encoding="utf-8"))
    assert timeless(json.loads(again.read_text(encoding="utf-8"))) == timeless(first)
    assert timeless(lines(whole)) == timeless(entries)
    assert sorted(p.name for p in whole.parent.iterdir()) == [
        "whole.again.json", "whole.json", "whole.jsonl",
    ]  # fmt: skip


def test_a_resumed_run_may_be_written_elsewhere(
    whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(whole, lines(whole)[:4])
    before = whole.read_bytes()
    other = whole.with_name("other.jsonl")
    code, _, _ = call(
        capsys, "verify", "--command", PLAIN, *BASIC, "--resume", str(whole), "--jsonl", str(other)
    )
    assert code == 1
    assert whole.read_bytes() == before
    assert records.read(other).complete


def other_suite(entries: list[dict[str, Any]]) -> None:
    entries[0]["suite"] = "0.1"


def other_version(entries: list[dict[str, Any]]) -> None:
    entries[1]["implementation"]["version"] = "0.9"


def other_dialect(entries: list[dict[str, Any]]) -> None:
    entries[1]["implementation"]["dialect"] = {"clip.global_norm": {"eps_at": "max"}}


def other_cases(entries: list[dict[str, Any]]) -> None:
    entries[0]["fixtures"]["clip.global_norm"] = "0" * 16


def not_a_case(entries: list[dict[str, Any]]) -> None:
    entries[2]["case"] = "clip.global_norm/none"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (other_suite, "is of suite 0.1"),
        (other_version, "is plain 1.0 now, and was plain 0.9"),
        (other_dialect, "declares other operations or dialects"),
        (other_cases, "the cases of clip.global_norm have changed since"),
        (not_a_case, "damaged: KeyError: 'clip.global_norm/none'"),
    ],
)
def test_what_is_not_the_same_any_more_is_not_resumed(
    change: Any, words: str, whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    entries = lines(whole)[:5]
    change(entries)
    write(whole, entries)
    code, out, err = call(capsys, "verify", "--resume", str(whole))
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert words in err
    assert timeless(lines(whole)) == timeless(entries)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--resume", "{whole}.json"), "only a file of JSON lines"),
        (("--resume", "{whole}.gone"), "No such file"),
        (("--resume", "{whole}.jsonl", "refimpl"), "give the same or nothing with --resume"),
        (("--resume", "{whole}.jsonl", "--case", "x"), "--case two-tensors-f64"),
    ],
)
def test_resuming_what_cannot_be_is_one_line(
    arguments: tuple[str, ...], words: str, whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stem = str(whole.with_suffix(""))
    given = [a.format(whole=stem) for a in arguments]
    code, out, err = call(capsys, "verify", *given)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert words in err


def test_a_later_line_replaces_an_earlier_one(whole: Path) -> None:
    entries = lines(whole)
    blamed = entries[2] | {"status": "crashed", "message": "answered twice"}
    write(whole, [*entries[:-1], blamed, entries[-1]])
    report = records.read(whole)
    assert report.count == 6
    assert report.participants[0]["verdicts"][0]["status"] == "crashed"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "truncated or not JSON"),
        ("{}", "no report of secateurs"),
        ('{"record": "head', "truncated or not JSON"),
        ('{"record": "header"}', "not even the header is whole"),
        ('{"record": "header", "schema": "x-1", "suite": "1"}\n', "schema is 'x-1'"),
        ("{HEAD}\n{bad\n{}\n", "line 2 is no record"),
        ('{HEAD}\n{"record": "verdict", "participant": "p"}\n', "without case or status"),
        ('{HEAD}\n{"record": "verdict", "participant": "p", "case": "a", "status": "failed"}\n',
         "damaged: KeyError"),
        ('{HEAD}\n{"record": "footer", "participants": [], "summary": {"passed": 3}}\n',
         "the footer counts 3 verdicts, there are 0"),
        ('{HEAD}\n{"record": "footer", "participants": [], "summary": {}}\n{HEAD}\n',
         "line 3 comes after the footer"),
    ],
)  # fmt: skip
def test_a_damaged_report_is_one_line(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    head = '{"record": "header", "schema": "secateurs-lines-1", "suite": "1"}'
    path.write_text(text.replace("{HEAD}", head), encoding="utf-8")
    with pytest.raises(records.RecordError) as caught:
        records.read(path)
    assert words in str(caught.value)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_expected_failures_are_marked_in_the_lines_and_judged_anew_on_resuming(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(participants, "adapters", lambda: {"broken": "broken"})
    monkeypatch.setattr(expected, "FOLDER", tmp_path)
    monkeypatch.setattr(
        "conformance.participants.adapter_command",
        lambda _: [sys.executable, str(HARNESSES / "plain.py"), "per-tensor"],
    )
    listed = "[[expected]]\ncase='*one-above*'\nreason='known'\nlink='l'\nversions='*'\n"
    (tmp_path / "broken.toml").write_text(listed)
    path = tmp_path / "r.jsonl"
    chosen = (*BASIC[:4], *BASIC[8:10], *BASIC[12:])  # without two-tensors-*
    code, _, _ = call(capsys, "verify", "broken", *chosen, "--jsonl", str(path))
    assert code == 0
    marked = [e for e in lines(path)[2:-1] if e["status"] == "expected_failure"]
    assert [(e["judged"], e["reason"]) for e in marked] == [("failed", "known (l)")] * 2
    write(path, lines(path)[:-1])
    assert call(capsys, "verify", "--resume", str(path))[0] == 0
    # The entry is gone: what was kept as expected is a failure again.
    (tmp_path / "broken.toml").unlink()
    write(path, lines(path)[:-1])
    assert call(capsys, "verify", "--resume", str(path))[0] == 1
    assert [e["status"] for e in lines(path)[2:-1]].count("failed") == 2


@pytest.mark.skipif(os.name != "posix", reason="signals")
def test_an_interrupted_run_says_how_to_go_on(tmp_path: Path) -> None:
    pids, path = tmp_path / "pids", tmp_path / "run.jsonl"
    hang = shlex.join([sys.executable, str(HARNESSES / "broken.py"), "hang", "just-above-f32"])
    process = subprocess.Popen(
        [sys.executable, "-m", "conformance.cli", "verify", "--command", hang, "--timeout", "60",
         "--operation", "clip.global_norm", "--jsonl", str(path)],
        env=os.environ | {"HARNESS_PIDS": str(pids)}, cwd=ROOT,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + 30
    while not (pids.exists() and pids.read_text().endswith("\n")) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert err == (f"secateurs: interrupted; go on with: secateurs verify --resume {path}\n")
    report = records.read(path)
    assert not report.complete
    assert report.count >= 1


@pytest.mark.parametrize(
    "difference",
    [
        Difference("total_norm", "nothing", "an output"),
        Difference("grads[0] shape", "[2, 2, 1]", "[2, 2]"),
        Difference("step 3, clip: grads[0][0, 1]", "0.6", "0.59702234", 1.23e6, 7),
        Difference("mask[0]", "-0.0", "0.0", 1.0, 0),
        Difference("w[1]", "nan", "1e-05", float("inf"), 12),
    ],
)
def test_a_difference_is_read_as_it_was_written(difference: Difference) -> None:
    assert records.difference(str(difference)) == difference


def verdicts() -> list[Verdict]:
    cases = select(["clip.value"])[:7]
    statuses: tuple[Status, ...] = ("passed", "failed", "errored", "crashed", "unsupported", "expected_failure",
                "unexpected_pass")  # fmt: skip
    return [
        Verdict(case, status, message=f"{status} \x00 <&\ud800\n", reason="known", seconds=0.25)
        for case, status in zip(cases, statuses, strict=True)
    ]


def test_a_verdict_survives_the_way_through_a_file(whole: Path) -> None:
    for before in verdicts():
        assert records.verdict(before.as_json(), before.case) == before
    departs = Difference("grads[0]", "1.0", "2.0", 5.0, 3)
    far = replace(verdicts()[0], departs=departs, worst_ulp=float("inf"), effect=0.5)
    assert records.verdict(json.loads(json.dumps(far.as_json())), far.case) == far


def test_junit_has_a_test_for_every_case_and_legal_characters_only() -> None:
    about = Implementation("lib\x0b", "1.0", "C", "17")
    root = xml.fromstring(junit.junit([
        Run("lib", about, verdicts(), seconds=2.5),
        Run("gone", not_started="not installed: gone", not_installed=True),
        Run("broken", not_started="no driver"),
    ]))  # fmt: skip
    suites = root.findall("testsuite")
    wanted = {"tests": "7", "failures": "2", "errors": "2", "skipped": "2", "time": "2.500"}
    assert {k: v for k, v in suites[0].attrib.items() if k != "name"} == wanted
    assert suites[0].get("name") == "lib\N{REPLACEMENT CHARACTER} 1.0"
    tests = suites[0].findall("testcase")
    assert [test.get("classname") for test in tests] == ["lib.clip.value"] * 7
    found = [(child.tag, child.get("type")) for test in tests for child in test]
    assert found == [
        ("failure", "failed"), ("error", "errored"), ("error", "crashed"), ("skipped", None),
        ("skipped", None), ("failure", "unexpected_pass"),
    ]  # fmt: skip
    assert tests[5][0].get("message") == "expected failure: known"
    assert suites[1].find("testcase/skipped") is not None
    assert suites[2].find("testcase/error") is not None
    assert (suites[2].get("errors"), suites[2].get("tests")) == ("1", "1")


def test_junit_is_written_by_the_command(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "j.xml"
    code, _, _ = call(capsys, "verify", "--command", PLAIN, *BASIC, "--junit", str(path))
    assert code == 1
    suite = xml.parse(path).find("testsuite")
    assert suite is not None
    assert (suite.get("tests"), suite.get("failures"), suite.get("skipped")) == ("6", "4", "1")


def test_the_lines_know_what_was_asked(whole: Path) -> None:
    from conformance.commands.resume import Asked

    assert lines(whole)[0]["asked"] == json.loads(json.dumps(asdict(Asked(
        commands=(PLAIN,), operations=("clip.global_norm",), cases=tuple(BASIC[5::2])
    ))))  # fmt: skip
