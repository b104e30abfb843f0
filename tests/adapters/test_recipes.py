"""The recipes through PyTorch and Keras: every step of a short run within its derived tolerance."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from adapters import _recipes_claims
from conformance import recipes
from conformance.commands.recipe import DIALECTS, FRAMEWORK_CLAIMS
from conformance.oracle.models import EXACTLY


def written(name: str, folder: Path, dialect: object = None) -> Path:
    script = folder / f"{name}.npz"
    command = [sys.executable, "-m", "refimpl", "recipe", name, "--script", str(script)]
    command += ["--dialect", json.dumps(dialect or {})]
    subprocess.run(command, check=True)
    return script


def answered(framework: str, script: Path) -> dict[str, np.ndarray]:
    answer = script.with_name(f"{framework}.npz")
    command = [sys.executable, "-m", "adapters._recipes", framework, str(script), str(answer)]
    subprocess.run(command, check=True, capture_output=True)
    return recipes.load(answer)


@pytest.mark.long
@pytest.mark.parametrize("framework", ["torch", "tensorflow"])
@pytest.mark.parametrize("name", ["A1", "A2", "A3", "A4", "A5"])
def test_twin_agrees_step_by_step(name: str, framework: str, tmp_path: Path) -> None:
    pytest.importorskip(framework)
    script = written(name, tmp_path, DIALECTS[framework])
    rows = recipes.compare(recipes.load(script), answered(framework, script))
    assert [row for row in rows if not row.agrees] == []
    assert len([row for row in rows if row.name.startswith("loss")]) >= 16


@pytest.mark.parametrize("name", ["A1", "A4", "A5"])
def test_the_oracle_of_tolerances_runs_the_same_recipe(name: str, tmp_path: Path) -> None:
    script = recipes.load(written(name, tmp_path))
    exact = recipes.run(script, EXACTLY)
    np.testing.assert_allclose(exact["loss"], script["result.loss"], rtol=1e-4)
    masks = [key for key in exact if key.startswith("masks")]
    assert len(masks) == (8 if name == "A4" else 0)
    for key in masks:
        np.testing.assert_array_equal(exact[key], script[f"result.{key}"])


def test_a_step_that_is_left_out_is_seen(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from adapters import _recipes, _recipes_torch

    path = written("A5", tmp_path)
    script = _recipes.load(path)
    script.description["clip"] = None
    rows = recipes.compare(recipes.load(path), _recipes_torch.run(script))
    assert any(not row.agrees for row in rows)


def test_framework_claims_are_named_alike() -> None:
    named = {article: tuple(claims) for article, claims in _recipes_claims.CLAIMS.items()}
    assert named == FRAMEWORK_CLAIMS


def test_pytorch_contradicts_the_articles(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    assert _recipes_claims.main("A2", "if-tensor") == 0
    assert _recipes_claims.main("A3", "parameters", "grad") == 0
    printed = capsys.readouterr().out
    assert "ambiguous" in printed
    assert "norm 10; clip_grad_norm_([w.grad], 1) returns 0 and leaves 10" in printed
    assert "'Linear' object has no attribute 'grad'" in printed


@pytest.mark.long
def test_tensorflow_contradicts_the_articles() -> None:
    pytest.importorskip("tensorflow")
    assert _recipes_claims.assign()[1]
    assert _recipes_claims.constraints()[1]


def test_a_damaged_script_is_one_line(tmp_path: Path) -> None:
    from adapters import _recipes

    broken = tmp_path / "broken.npz"
    broken.write_bytes(b"PK not really")
    with pytest.raises(ValueError, match="damaged or no script"):
        _recipes.load(broken)
