"""Whatever a harness does costs the case that was asked, with the status it deserves, and no other."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from conformance import memory, protocol
from conformance.cases import Case
from conformance.protocol import Interrupted
from conformance.runner import Run, run, run_all, select

HARNESSES = Path(__file__).parent / "harnesses"
POSIX = pytest.mark.skipif(os.name != "posix", reason="signals and process groups")
BAD, GOOD = "two-tensors-f32", "just-above-f32"


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    chosen = select(["clip.global_norm"], [BAD, GOOD])
    return sorted(chosen, key=lambda case: case.id != BAD)


def harness(mode: str, case: str = BAD) -> list[str]:
    return [sys.executable, str(HARNESSES / "broken.py"), mode, case]


def statuses(result: Run) -> list[str]:
    return [verdict.status for verdict in result.verdicts]


@pytest.mark.parametrize(
    ("mode", "status", "words"),
    [
        ("correct", "passed", ""),
        ("wrong-json", "crashed", "not JSON: \"{'id': nonsense"),
        ("json-list", "crashed", "not a JSON object"),
        ("deep", "crashed", "not JSON"),
        ("garbage-first", "crashed", "Loading weights"),
        ("truncated", "crashed", "not a whole line"),
        ("not-utf8", "crashed", "not UTF-8"),
        ("wrong-id", "crashed", "answered for 'clip.global_norm/another'"),
        ("no-id", "crashed", "answered for None"),
        ("early-exit", "crashed", "ended with exit code 0"),
        ("exit-code", "crashed", "ended with exit code 7; standard error ends: out of cheese"),
        pytest.param("segfault", "crashed", "SIGSEGV", marks=POSIX),
        ("closes-output", "crashed", "closed its output"),
        ("dies-leaving-child", "crashed", "ended with exit code 9"),
        ("stderr-flood", "passed", ""),
        ("leaves-child", "passed", ""),
        ("answers-twice", "crashed", "answered twice"),
        ("long-line", "passed", ""),
        ("errored", "errored", "KeyError: 'beta'"),
        ("no-outputs", "crashed", "neither outputs nor a status"),
        ("few-words", "failed", "malformed output: float32 of shape [2, 2] needs 4 words"),
        ("not-hex", "failed", "malformed output: bits are not hexadecimal"),
        ("bits-number", "failed", "malformed output: the bits of a tensor must be one string"),
        ("unknown-dtype", "failed", "malformed output: unknown dtype 'float8'"),
        ("dtype-list", "failed", "malformed output"),
        ("huge-shape", "failed", "malformed output"),
        ("float-shape", "failed", "malformed output"),
        ("shape-text", "failed", "malformed output"),
        ("wrong-shape", "failed", "grads[0] shape: got [2, 2, 1], expected [2, 2]"),
        ("wrong-dtype", "failed", "grads[0] dtype: got int32, expected float32"),
        ("tensor-for-list", "failed", "grads: got 1 tensors, expected 2 tensors"),
        ("text-for-tensor", "failed", "malformed output"),
        ("missing-output", "failed", "total_norm: got nothing"),
        ("fewer-tensors", "failed", "grads: got 1 tensors, expected 2 tensors"),
        ("null-tensor", "failed", "grads[0]: got absent, expected a tensor"),
        ("mutated", "failed", "wrote to the caller's grads"),
        ("mutated-number", "failed", "mutated must be a list"),
    ],
)
def test_one_case_pays_and_the_next_is_judged_as_ever(
    mode: str, status: str, words: str, cases: list[Case]
) -> None:
    result = run("harness", harness(mode), cases, timeout=10)
    assert statuses(result) == [status, "passed"]
    assert words in result.verdicts[0].message
    assert "\n" not in result.verdicts[0].message
    assert result.verdicts[0].canonical is (
        True if status == "passed" else False if status == "failed" else None
    )
    assert result.notes == []


@pytest.mark.parametrize("mode", ["hang", "answers-late"])
def test_a_silent_process_is_stopped_and_its_late_answer_is_not_booked_on_the_next_case(
    mode: str, cases: list[Case]
) -> None:
    result = run("harness", harness(mode), cases, timeout=0.7)
    assert statuses(result) == ["timed_out", "passed"]
    assert "no answer within 0.7 s" in result.verdicts[0].message


@pytest.mark.skipif(not memory.known(), reason="the system does not say how much memory there is")
@pytest.mark.parametrize("mode", ["eats-memory", "hoards-and-answers", "child-eats-memory"])
def test_a_process_that_eats_memory_is_killed_and_the_rest_goes_on(
    mode: str, cases: list[Case], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_PIDS", str(tmp_path / "pids"))
    result = run("harness", harness(mode), cases, timeout=20, memory=200)
    assert statuses(result) == ["crashed", "passed"]
    assert "MiB of memory, more than the 200 allowed" in result.verdicts[0].message
    assert gone([int(line) for line in (tmp_path / "pids").read_text().split()])


@pytest.mark.skipif(not memory.known(), reason="the system does not say how much memory there is")
def test_without_a_limit_memory_is_nobodys_business(cases: list[Case]) -> None:
    result = run("harness", harness("hoards-and-answers"), cases, timeout=20, memory=0)
    assert statuses(result) == ["passed", "passed"]


def test_a_process_that_never_reads_times_out_on_every_case(cases: list[Case]) -> None:
    large = select(["clip.global_norm"], ["long-ones-f32"])
    result = run("harness", harness("never-reads"), [*large, *cases], timeout=0.4)
    assert statuses(result) == ["timed_out"] * 3
    assert result.seconds < 20


@pytest.mark.parametrize("mode", ["long-line", "endless-line"])
def test_a_line_beyond_the_limit_is_a_crash(
    mode: str, cases: list[Case], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "LONGEST_LINE", 100_000)
    result = run("harness", harness(mode), cases, timeout=10)
    assert statuses(result) == ["crashed", "passed"]
    assert "longer than the limit" in result.verdicts[0].message


def test_a_second_answer_is_noticed_even_after_the_last_case(cases: list[Case]) -> None:
    result = run("harness", harness("answers-twice", GOOD), cases, timeout=10)
    assert statuses(result) == ["passed", "crashed"]
    assert result.verdicts[1].message == "answered twice"
    assert result.verdicts[1].canonical is None


def test_every_second_answer_is_booked_on_its_own_case(cases: list[Case]) -> None:
    below = select(["clip.global_norm"], ["below-f32"])
    result = run("harness", harness("answers-twice"), [*cases[::-1], *below], timeout=10)
    assert statuses(result) == ["passed", "crashed", "passed"]


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("unknown-dial", "clip.global_norm has no dial 'colour'"),
        ("unknown-setting", "has no setting nonfinite=shrug; it knows all_nan, multiply, reject"),
    ],
)
def test_a_dialect_that_the_operation_does_not_know_fails(
    mode: str, words: str, cases: list[Case]
) -> None:
    result = run("harness", harness(mode), cases, timeout=10)
    assert statuses(result) == ["failed", "failed"]
    assert words in result.verdicts[0].message


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("dialect-text", "the answer to start is malformed"),
        ("dtypes-text", "dtypes must be a list of names"),
        ("other-protocol", "speaks protocol 2, not 1"),
        ("banner", "not JSON: 'Welcome!"),
        ("start-exit", "exit code 4; standard error ends: licence expired"),
        ("start-nothing", "the answer to start is malformed: KeyError('implementation')"),
    ],
)
def test_a_bad_start_is_one_line_that_says_why(mode: str, words: str, cases: list[Case]) -> None:
    result = run("harness", harness(mode), cases, timeout=10)
    assert result.not_started is not None
    assert words in result.not_started
    assert "\n" not in result.not_started
    assert (result.verdicts, result.not_installed, result.as_expected) == ([], False, False)


def test_what_is_not_installed_is_told_from_what_is_broken(cases: list[Case]) -> None:
    result = run("harness", harness("start-not-installed"), cases, timeout=10)
    assert (result.not_started, result.not_installed) == ("not installed: cheese", True)


def test_a_program_that_is_not_there_is_not_started(cases: list[Case]) -> None:
    result = run("harness", ["/no/such/program"], cases)
    assert result.not_started is not None
    assert "cannot run /no/such/program" in result.not_started


@pytest.mark.parametrize(
    ("mode", "note"),
    [("ignores-stop", "did not stop within 0.3 s"), ("stop-code", "exit code 5, not 0")],
)
def test_a_bad_stop_is_noted_and_costs_no_case(
    mode: str, note: str, cases: list[Case], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "STOP_SECONDS", 0.3 if mode == "ignores-stop" else 10)
    result = run("harness", harness(mode), cases, timeout=10)
    assert statuses(result) == ["passed", "passed"]
    assert len(result.notes) == 1
    assert note in result.notes[0]


def alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    if Path("/proc/self/stat").exists():
        # A killed process that nobody has waited for yet is still listed, as a zombie.
        return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def gone(pids: list[int]) -> bool:
    deadline = time.monotonic() + 5
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not any(map(alive, pids))


@POSIX
@pytest.mark.parametrize("mode", ["leaves-child", "dies-leaving-child", "hang"])
def test_no_process_is_left_behind(
    mode: str, cases: list[Case], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_PIDS", str(tmp_path / "pids"))
    run("harness", harness(mode), cases, timeout=1)
    pids = [int(line) for line in (tmp_path / "pids").read_text().split()]
    assert len(pids) >= 2
    assert gone(pids)


@POSIX
def test_an_interrupt_ends_a_hanging_run_at_once(
    cases: list[Case], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_PIDS", str(tmp_path / "pids"))
    interrupt = threading.Event()
    threading.Timer(1.0, interrupt.set).start()
    started = time.monotonic()
    with pytest.raises(Interrupted):
        run("harness", harness("hang"), cases, timeout=60, interrupt=interrupt)
    assert time.monotonic() - started < 10
    assert gone([int(line) for line in (tmp_path / "pids").read_text().split()])


@POSIX
def test_a_keyboard_interrupt_reaches_every_participant(
    cases: list[Case], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HARNESS_PIDS", str(tmp_path / "pids"))
    participants = {"a": harness("hang"), "b": harness("hang")}
    threading.Timer(1.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    with pytest.raises(KeyboardInterrupt):
        run_all(participants, cases, timeout=60, jobs=2)
    pids = [int(line) for line in (tmp_path / "pids").read_text().split()]
    assert len(pids) == 2
    assert gone(pids)


def test_shared_out_cases_come_back_in_their_order() -> None:
    cases = select(["clip.global_norm"])[:40]
    seen: list[tuple[str, int, int]] = []
    command = [sys.executable, str(HARNESSES / "plain.py")]
    whole = run_all({"plain": command}, cases, jobs=1)[0]
    shared = run_all({"plain": command}, cases, jobs=3, progress=lambda *x: seen.append(x))[0]
    assert [v.case.id for v in shared.verdicts] == [case.id for case in cases]
    assert statuses(shared) == statuses(whole)
    assert max(seen, key=lambda s: s[1]) == ("plain", 40, 40)


def test_runs_come_back_in_the_order_of_the_participants(cases: list[Case]) -> None:
    participants = {
        "slow": harness("hang"),
        "absent": ["/no/such/program"],
        "right": harness("correct"),
    }
    runs = run_all(participants, cases, timeout=1.0, jobs=3)
    assert [r.participant for r in runs] == ["slow", "absent", "right"]
    assert [r.as_expected for r in runs] == [False, False, True]


def test_a_damaged_question_is_no_verdict(cases: list[Case]) -> None:
    broken = Case("clip.global_norm", BAD, (), (), cases[0].inputs, cases[0].params)
    broken.frozen = {"expected": {"canonical": {"outputs": {"grads": [{"dtype": "float32"}]}}}}
    broken.frozen["tolerance"] = {"grads": {"ulp": 1}}
    with pytest.raises(ValueError, match=r"clip.global_norm.json: case two-tensors-f32: expected"):
        run("harness", harness("correct"), [broken])
