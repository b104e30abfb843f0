"""``secateurs smoke`` passes what is sound and names what is not, with a way to mend it."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest

from conformance.cli import main
from conformance.protocol import NotStarted
from conformance.smoke import Check, smoke
from conformance.smoke_probes import PASSING, values

HARNESSES = Path(__file__).parent / "harnesses"


def command(name: str, *options: str) -> list[str]:
    return [sys.executable, str(HARNESSES / f"{name}.py"), *options]


def failing(checks: list[Check]) -> dict[str, Check]:
    return {check.name: check for check in checks if check.passed is False}


@pytest.mark.parametrize("name", ["plain", "training"])
def test_a_sound_harness_passes_every_check(name: str) -> None:
    checks = list(smoke(command(name)))
    assert failing(checks) == {}
    asked = {check.name for check in checks if check.passed}
    assert {"float64 bits", "float32 bits", "same tensor twice", "long line", "stop"} <= asked
    assert len(checks) > 20


def test_wrong_numbers_are_not_its_business() -> None:
    assert failing(list(smoke(command("plain", "max-for-min")))) == {}


SEEN_AT_ONCE = [
    ("nameless", "says what it is", "empty: version"),
    ("unknown-dial", "dialect", "colour"),
    ("wrong-id", "answers at once", "CLIP.GLOBAL_NORM"),
    ("reversed", "ids in order", "smoke/third, smoke/second, smoke/first"),
    ("refuses-unknown", "unknown operation", "rejected"),
    ("dies-of-malformed", "malformed request", "ended with exit code 1"),
    ("no-sign-of-zero", "float32 bits", "got 0.0, expected -0.0"),
    ("at-least-1d", "no axes", "shape"),
    ("echo", "computes", "every output is an input: clip.global_norm"),
    ("writes", "inputs untouched", "writes to the caller's grads"),
    ("stop-code", "stop", "exit code 2"),
]
SEEN_TOO = [
    ("other-ids", "operations", "unknown: clip_by_global_norm"),
    ("other-dtypes", "dtypes", "unknown: double"),
    ("dialect-of-nothing", "dialect", "clip.norm"),
    ("no-operations", "asked", "no operation"),
    ("chatters", "ids in order", "more lines than requests"),
    ("flushes", "float32 bits", "expected 1e-45"),
    ("little-endian", "float64 bits", "clip.global_norm"),
    ("drops-absent", "absent", "grads"),
    ("short-lines", "long line", ""),
    ("remembers", "same again", "another answer"),
    ("writes-nothing-known", "inputs untouched", "weights"),
]


@pytest.mark.parametrize(
    ("mode", "check", "said"),
    [*SEEN_AT_ONCE, *(pytest.param(*row, marks=pytest.mark.slow) for row in SEEN_TOO)],
)
def test_what_is_wrong_is_named_with_a_way_to_mend_it(mode: str, check: str, said: str) -> None:
    found = failing(list(smoke(command("sloppy", mode), timeout=3)))
    assert check in found, found
    assert said in found[check].said
    assert found[check].mend


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "check", "said"),
    [
        ("unflushed", "answers at once", "only when the input had ended"),
        ("outlives", "end of input", "still running"),
    ],
)
def test_what_takes_a_time_limit_to_see(mode: str, check: str, said: str) -> None:
    found = failing(list(smoke(command("sloppy", mode), timeout=1)))
    assert said in found[check].said


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "check"),
    [
        ("wrong-json", "float64 bits"),
        ("not-utf8", "float64 bits"),
        ("early-exit", "no axes"),
        ("few-words", "float64 bits"),
        ("wrong-dtype", "float64 bits"),
        ("missing-output", "float32 bits"),
    ],
)
def test_what_goes_wrong_in_a_probe(mode: str, check: str) -> None:
    assert check in failing(list(smoke(command("broken", mode, "smoke"), timeout=3)))


@pytest.mark.parametrize("mode", ["banner", "start-exit", "other-protocol", "dtypes-text"])
def test_a_harness_that_does_not_start(
    mode: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(NotStarted):
        next(smoke(command("broken", mode, "x")))
    code = main(["smoke", "--command", shlex.join(command("broken", mode, "x"))])
    assert code == 3
    assert "could not be started" in capsys.readouterr().err


def test_the_command_prints_one_line_a_check_and_the_way_to_mend(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["smoke", "--command", shlex.join(command("plain"))]) == 0
    printed = capsys.readouterr().out
    assert "ok      float64 bits       through clip.global_norm" in printed
    assert "Next: secateurs verify --command" in printed
    assert main(["smoke", "--command", shlex.join(command("sloppy", "writes"))]) == 1
    printed = capsys.readouterr().out
    assert "FAILED  inputs untouched" in printed
    assert '→ if that is documented, declare the dial "in_place": "documented"' in printed


@pytest.mark.parametrize(
    ("words", "code"),
    [(["smoke"], 2), (["smoke", "torch", "--command", "x"], 2), (["smoke", "cheese"], 3),
     (["smoke", "--command", "/no/such/program"], 3)],
)  # fmt: skip
def test_wrong_usage(words: list[str], code: int, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(words) == code
    assert capsys.readouterr().err.startswith("secateurs: ")


def test_the_numbers_that_go_through_are_the_hard_ones() -> None:
    words = values("float32").view("u4")
    assert {0x80000000, 0x00000001, 0x7F7FFFFF, 0x7F800000, 0xFF800000} <= set(words.tolist())
    assert len(PASSING) >= 6
