"""A harness by someone else: it knows the contract and nothing of this project's code."""

from __future__ import annotations

import ast
import json
import re
import shlex
import sys
from pathlib import Path
from typing import Any

import pytest

from conformance.cli import main

HARNESS = Path(__file__).parent / "harnesses" / "training.py"
OPERATIONS = (
    "clip.global_norm",
    "clip.value",
    "optim.sgd",
    "optim.adam",
    "optim.adamw",
    "train.step",
)


def verify(folder: Path, operations: tuple[str, ...], *options: str) -> tuple[int, dict[str, Any]]:
    """Run ``secateurs verify --command``; return the exit code and the verdicts by case."""
    report = folder / "report.json"
    chosen = [word for name in operations for word in ("--operation", name)]
    command = shlex.join([sys.executable, str(HARNESS), *options])
    code = main(["verify", "--command", command, *chosen, "--json", str(report)])
    (participant,) = json.loads(report.read_text(encoding="utf-8"))["participants"]
    return code, {verdict["case"]: verdict for verdict in participant["verdicts"]}


def test_the_harness_imports_nothing_of_ours() -> None:
    allowed = set(sys.stdlib_module_names) | {"plain"}
    for path in (HARNESS, HARNESS.with_name("plain.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                assert {alias.name for alias in node.names} <= allowed
            assert not isinstance(node, ast.ImportFrom)


@pytest.mark.parametrize("rounded", ["output", "step"])
def test_double_precision_from_the_contract_alone_passes(rounded: str, tmp_path: Path) -> None:
    code, verdicts = verify(tmp_path, OPERATIONS, "--round", rounded)
    assert code == 0
    statuses = {name: {v["status"] for k, v in verdicts.items() if k.startswith(name + "/")}
                for name in OPERATIONS}  # fmt: skip
    assert all(found <= {"passed", "unsupported"} for found in statuses.values())
    asked = [v for v in verdicts.values() if v["status"] == "passed"]
    assert len(asked) > 600
    assert all(v["canonical"] for v in asked)


NORM = "step 0, stage norm before the clip: total_norm[0]: got "
FIRST_UPDATE = "step 0, stage update, tensor 0: params[0][0]"


@pytest.mark.parametrize(
    ("mistake", "case", "where"),
    [
        ("per-tensor", "clip.global_norm/rank-norms-3-and-4-f32", "grads[0][0]: got -1.0"),
        ("max-for-min", "clip.global_norm/just-below-f32", "grads[0][0]: got 3.0046875"),
        ("max-for-min", "clip.value/range-f32", "grads[0]"),
        ("range-not-halved", "clip.value/range-f32", "grads[0][0, 0]: got 3.0, expected 1.5"),
        ("clip-before-unscale", "train.step/scale-1024-sgd-f32", NORM),
        ("clip-each", "train.step/orthogonal-micro-batches-f32", NORM + "1.414"),
        ("sum-for-mean", "train.step/mean-of-3-sgd-f32", NORM),
        ("penalty-after-clip", "train.step/penalty-l1-f32", NORM),
        (
            "masked-gradients-only",
            "train.step/masks-momentum-f32",
            FIRST_UPDATE + "[0, 1]: got -0.75",
        ),
        ("skip-counted", "train.step/skip-adam-f32", "step 2, stage update, tensor 0: "),
        (
            "skip-forgotten",
            "train.step/skip-first-f32",
            "step 0, stage finite check: skipped[0]: got 0",
        ),
        ("eps-inside-root", "optim.adam/observed-f32", "params[0][0][3]: got 0.24999"),
        ("nesterov-ignored", "optim.sgd/observed-nesterov-f32", "params[0][0][0]: got 0.99"),
        ("rate-frozen", "optim.sgd/one-then-tenth-f32", "params[1][0][0]: got -2.15"),
    ],
)
def test_a_planted_mistake_is_named_with_the_case_that_shows_it(
    mistake: str, case: str, where: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    operation = case.partition("/")[0]
    code, verdicts = verify(tmp_path, (operation,), "--mistake", mistake)
    assert code == 1
    assert verdicts[case]["status"] == "failed"
    assert verdicts[case]["difference"].startswith(where)
    out = capsys.readouterr().out
    assert re.search(rf"^failed     {re.escape(operation)}/", out, re.M)
