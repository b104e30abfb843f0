"""TensorFlow.js under Node: it starts, answers, and differs from what is right only as written down."""

from __future__ import annotations

import re

import pytest

from adapters.base import NotStarted
from adapters.tfjs import FOLDER, command
from conformance import expected
from conformance.operations import matching
from conformance.runner import DIFFERENT, Run, run, select


def asked(*patterns: str) -> Run:
    try:
        program = command()
    except NotStarted as reason:
        pytest.skip(str(reason))
    result = run("tfjs", program, select([name for p in patterns for name in matching(p)]))
    expected.apply(result, expected.read("tfjs"))
    assert result.not_started is None
    return result


def test_one_operation_and_a_clean_stop() -> None:
    result = asked("clip.value")
    assert result.notes == []
    assert {v.status for v in result.verdicts} == {"passed", "unsupported"}
    assert result.counts["passed"] == result.counts["canonical"] > 30
    assert result.implementation is not None
    assert result.implementation.language == "JavaScript"


def test_the_padded_average_loses_gradient_as_written_down() -> None:
    verdicts = {v.case.id: v for v in asked("layer.avg_pool2d").verdicts}
    lost = verdicts["padding-ones-f32"]
    assert lost.status == "expected_failure"
    assert "got 0.69290626, expected 1.5590391" in lost.message
    assert verdicts["basic-f32"].status == "passed"


@pytest.mark.slow
def test_everything_is_as_written_down() -> None:
    result = asked("*")
    assert [v.case.full_id for v in result.verdicts if v.status in DIFFERENT] == []
    assert result.counts["passed"] > 700


def test_the_packages_are_pinned_without_an_address() -> None:
    lock = (FOLDER / "package-lock.json").read_text(encoding="utf-8")
    assert "http" not in re.sub(r'"(funding|url)": (\{|"[^"]*")', "", lock)
    assert '"integrity": "sha512-' in lock
