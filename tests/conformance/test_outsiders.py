"""A harness by someone else: it knows the contract and nothing of this project's code."""

from __future__ import annotations

import ast
import json
import shlex
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from conformance.cli import main
from conformance.runner import select

HARNESS = Path(__file__).parent / "harnesses" / "training.py"
OPERATIONS = (
    "clip.global_norm",
    "clip.value",
    "optim.sgd",
    "optim.adam",
    "optim.adamw",
    "train.step",
)


def verify(
    folder: Path, operations: tuple[str, ...], *options: str, cases: Iterable[str] = ()
) -> tuple[int, dict[str, Any]]:
    """Run ``secateurs verify --command``; return the exit code and the report on the harness."""
    report = folder / "report.json"
    chosen = [word for name in operations for word in ("--operation", name)]
    chosen += [word for case in cases for word in ("--case", case)]
    command = shlex.join([sys.executable, str(HARNESS), *options])
    code = main(["verify", "--command", command, *chosen, "--json", str(report)])
    (participant,) = json.loads(report.read_text(encoding="utf-8"))["participants"]
    return code, participant


def test_the_harness_imports_nothing_of_ours() -> None:
    allowed = set(sys.stdlib_module_names) | {"plain"}
    for path in (HARNESS, HARNESS.with_name("plain.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                assert {alias.name for alias in node.names} <= allowed
            assert not isinstance(node, ast.ImportFrom)


@pytest.mark.parametrize("rounded", ["output", "step"])
def test_double_precision_from_the_contract_alone_passes(rounded: str, tmp_path: Path) -> None:
    code, report = verify(tmp_path, OPERATIONS, "--round", rounded)
    assert (code, report["diagnosis"]) == (0, {})
    assert {v["status"] for v in report["verdicts"]} == {"passed", "unsupported"}
    passed = [v for v in report["verdicts"] if v["status"] == "passed"]
    assert {v["case"].partition("/")[0] for v in passed} == set(OPERATIONS)
    assert len(passed) > 600
    assert all(v["canonical"] for v in passed)


NORM = "step 0, stage norm before the clip: total_norm[0]: got "
FIRST_UPDATE = "step 0, stage update, tensor 0: params[0][0]"


@pytest.mark.parametrize(
    ("mistake", "case", "where", "diagnosis"),
    [
        ("per-tensor", "clip.global_norm/rank-norms-3-and-4-f32", "grads[0][0]: got -1.0",
         'the known mistake "norm per tensor": each tensor is clipped by its own norm'
         " (keras-team/keras#13575)"),
        ("max-for-min", "clip.global_norm/just-below-f32", "grads[0][0]: got 3.0046875",
         'the known mistake "max for min"'),
        ("max-for-min", "clip.value/range-f32", "grads[0]", 'the known mistake "max for min"'),
        ("range-not-halved", "clip.value/range-f32", "grads[0][0, 0]: got 3.0, expected 1.5",
         'the known mistake "range not halved"'),
        ("clip-before-unscale", "train.step/scale-1024-sgd-f32", NORM,
         'the known mistake "clip before unscale"'),
        ("clip-each", "train.step/orthogonal-micro-batches-f32", NORM + "1.414",
         'the known mistake "clip each micro-batch"'),
        ("sum-for-mean", "train.step/mean-of-3-sgd-f32", NORM, 'the known mistake "sum for mean"'),
        ("penalty-after-clip", "train.step/penalty-l1-f32", NORM,
         'the known mistake "penalty after the clip"'),
        ("masked-gradients-only", "train.step/masks-momentum-f32",
         FIRST_UPDATE + "[0, 1]: got -0.75", 'the known mistake "masks on gradients only"'),
        ("skip-counted", "train.step/skip-adam-f32", "step 2, stage update, tensor 0: ",
         'the known mistake "skipped step counted"'),
        ("skip-forgotten", "train.step/skip-first-f32", "step 0, stage finite check: skipped[0]: got 0",
         'the known mistake "non-finite step taken"'),
        ("eps-inside-root", "optim.adam/observed-f32", "params[0][0][3]: got 0.24999",
         "optim.adam with eps_at = inside_root"),
        ("nesterov-ignored", "optim.sgd/observed-nesterov-f32", "params[0][0][0]: got 0.99",
         'the known mistake "nesterov ignored"'),
        ("rate-frozen", "optim.sgd/one-then-tenth-f32", "params[1][0][0]: got -2.15",
         'the known mistake "learning rate frozen"'),
    ],
)  # fmt: skip
def test_a_planted_mistake_is_named_with_the_case_that_shows_it(
    mistake: str,
    case: str,
    where: str,
    diagnosis: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    operation = case.partition("/")[0]
    narrow = [c.full_id for c in select([operation]) if c.id.endswith("-f32")]
    code, report = verify(tmp_path, (operation,), "--mistake", mistake, cases=narrow)
    assert code == 1
    verdicts = {verdict["case"]: verdict for verdict in report["verdicts"]}
    assert verdicts[case]["status"] == "failed"
    assert verdicts[case]["difference"].startswith(where)
    found = report["diagnosis"][operation]
    assert found["sentence"].startswith(f"behaves like {diagnosis}")
    assert found["explained"] == found["failing"]
    printed = " ".join(capsys.readouterr().out.split())
    assert f"failed {operation}/" in printed
    assert f"diagnosis {operation} behaves like {diagnosis}" in printed
