"""Precision classes: what separates them, what is measured, and where a user sees it."""

from __future__ import annotations

import json
import math
import shlex
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from conformance import precision, report
from conformance.cases import Case, Stream
from conformance.cli import main
from conformance.judge import Verdict, judge
from conformance.operations import load
from conformance.precision import PROBES, Measure, classify
from conformance.protocol import Implementation
from conformance.runner import Run

PLAIN = Path(__file__).parent / "harnesses" / "plain.py"


@pytest.mark.parametrize(
    ("ulps", "roundings", "name"),
    [
        (0.0, 3, "correctly rounded"),
        (0.5, 1000, "correctly rounded"),
        (0.51, 3, "few ULP"),
        (3.0, 3, "few ULP"),
        (3.1, 3, "worse"),
        (12.0, 1000, "pairwise-like"),
        (12.1, 1000, "sequential-like"),
        (1000.0, 1000, "sequential-like"),
        (1000.1, 1000, "worse"),
        (math.inf, 1000, "worse"),
        (math.nan, 1000, "worse"),
    ],
)
def test_classes_by_their_bounds(ulps: float, roundings: int, name: str) -> None:
    assert classify(ulps, roundings) == name


def _splitmix64(state: int) -> Iterator[int]:
    """Yield the numbers of Steele, Lea & Flood's generator, one at a time as they define it."""
    while True:
        state = (state + 0x9E3779B97F4A7C15) % 2**64
        z = (state ^ (state >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        yield z ^ (z >> 31)


def test_a_stream_is_splitmix64_however_many_are_drawn_at_once() -> None:
    words = _splitmix64((9 * 0x9E3779B97F4A7C15 + 0x1234567) % 2**64)
    stream = Stream(9)
    assert stream.bits() == next(words)
    drawn = stream.uniform(7, 3, low=-1.0, high=3.0)
    assert drawn.ravel().tolist() == [-1 + 4 * ((next(words) >> 11) * 2.0**-53) for _ in range(21)]
    assert stream.integers(5, below=13).tolist() == [next(words) % 13 for _ in range(5)]
    assert stream.uniform(0).shape == (0,)
    assert stream.bits() == next(words)
    # SplitMix64 from the seed 1234567, the numbers that its author's C program prints
    known = Stream(0)
    known.state = 1234567
    assert [known.bits() for _ in range(3)] == [
        6457827717110365317, 3203168211198807973, 9817491932198370423,
    ]  # fmt: skip


def test_expected_sums_are_exact() -> None:
    grads = Stream(5).uniform(300).astype(np.float32)
    squares = sum(Fraction(float(x)) ** 2 for x in grads)
    norm = PROBES[0].exact({"grads": [grads]})
    assert abs(Fraction(norm) ** 2 / squares - 1) < 2**-51
    total = sum(abs(Fraction(float(x))) for x in grads)
    assert abs(Fraction(PROBES[1].exact({"weights": [grads]})) / total - 1) < 2**-52


def sequential(values: np.ndarray) -> np.float32:
    return np.cumsum(values, dtype=np.float32)[-1]


@pytest.mark.parametrize(
    ("total", "name"),
    [
        (lambda x: np.float32(math.sqrt(math.fsum((x.astype(np.float64) ** 2).tolist()))),
         "correctly rounded"),
        (lambda x: np.sqrt(np.sum(x * x)) * np.float32(1 + 2**-21), "pairwise-like"),
        (lambda x: np.sqrt(sequential(x * x)), "sequential-like"),
        (lambda x: np.sqrt(np.cumsum((x * x).astype(np.float16), dtype=np.float16)[-1]).astype(np.float32),
         "worse"),
    ],
)  # fmt: skip
def test_ways_to_sum_a_million_squares_are_told_apart(total: object, name: str) -> None:
    probe = PROBES[0]
    case = probe.case()
    assert callable(total)
    answer = np.asarray(total(case.inputs["grads"][0]))
    measure = probe.measure(case, {"total_norm": answer})
    assert measure is not None
    assert measure.name == name, measure
    assert measure.roundings > 500_000, "half of those of the sum, for the root"


def run_with(*verdicts: Verdict) -> Run:
    about = Implementation("lib", "1", "Python", "3")
    return Run("lib", about, list(verdicts))


def verdict(flags: tuple[str, ...], size: int, off: int, status: str = "passed") -> Verdict:
    x = np.full((1, size), 0.5, np.float32)
    inputs = {"x": x, "weight": np.ones((size, 1), np.float32), "bias": None,
              "dy": np.ones((1, 1), np.float32)}  # fmt: skip
    case = Case("layer.dense", f"c{size}", flags, (), inputs, {})
    from conformance.formats import encode
    from conformance.operation import map_tensors

    outputs = {n: map_tensors(lambda leaf: leaf.tensor.copy(), t)
               for n, t in load("layer.dense").expect(case).outputs.items()}  # fmt: skip
    y = outputs["y"]
    outputs["y"] = (y.view(np.uint32) + np.uint32(off)).view(np.float32)
    found = judge(load("layer.dense"), case, {}, {"outputs": map_tensors(encode, outputs)})
    found.status = status  # type: ignore[assignment]
    return found


def test_flagged_and_large_cases_count_and_expected_failures_do_not() -> None:
    small = verdict((), 20, 3)
    flagged = verdict(("wide-range",), 20, 3)
    large = verdict((), 600, 0)
    known = verdict(("wide-range",), 600, 600, "expected_failure")
    assert small.precision
    assert run_with(small).precision == {}
    measure = run_with(small, flagged, large, known).precision["layer.dense"]
    assert (measure.name, measure.where) == ("pairwise-like", "layer.dense/c20")
    assert measure.ulps == 3.0
    assert run_with(large).precision["layer.dense"].name == "correctly rounded"


def test_every_report_says_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = shlex.join([sys.executable, str(PLAIN)])
    files = {kind: tmp_path / f"report.{kind}" for kind in ("json", "markdown", "html")}
    options = [word for kind, path in files.items() for word in (f"--{kind}", str(path))]
    arguments = ["verify", "--command", command, "--operation", "clip.global_norm", "--precision"]
    assert main([*arguments, "--timeout", "60", *options]) == 0
    words = "the float32 norm of 1,000,000 numbers"
    out = " ".join(capsys.readouterr().out.split())
    assert f"{words} 0" in out
    assert "ULP, correctly rounded" in out
    (participant,) = json.loads(files["json"].read_text())["participants"]
    measured = participant["precision"]["clip.global_norm"]
    assert measured["class"] in precision.CLASSES
    assert f"precision: {words}: 0" in files["markdown"].read_text()
    assert f"{words} is 0" in files["html"].read_text()


def test_lines_name_each_class_once() -> None:
    run = run_with()
    run.probed = {"clip.global_norm": Measure(410.2, 10**6, "the norm"),
                  "penalty.l1": Measure(0.31, 10**6, "the sum")}  # fmt: skip
    assert report.precisions(run) == [
        ("correctly rounded", "penalty.l1 0.31"),
        ("sequential-like", "clip.global_norm 410"),
        ("the norm", "410 ULP, sequential-like"),
        ("the sum", "0.31 ULP, correctly rounded"),
    ]
