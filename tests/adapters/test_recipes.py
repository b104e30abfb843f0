"""The recipes through PyTorch and Keras: every step of a short run within its derived tolerance."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from adapters import _recipes_claims
from conformance import recipes
from conformance.cli import main
from conformance.commands.recipe import DIALECTS, FRAMEWORK_CLAIMS
from conformance.oracle.models import EXACTLY
from refimpl.recipes import script
from refimpl.recipes.command import recipe

NAMES = ("A1", "A2", "A3", "A4", "A5")
ANSWER = """
import sys
from importlib import import_module
from pathlib import Path
import numpy as np
from adapters import _recipes
framework, folder = sys.argv[1:]
run = import_module(f"adapters._recipes_{framework}").run
for script in Path(folder).glob("A?.npz"):
    np.savez(script.with_suffix(".answer.npz"), **run(_recipes.load(script)))
"""


def written(name: str, folder: Path, dialect: object = None) -> Path:
    file = folder / f"{name}.npz"
    script.save(file, recipe(name).script(0), dialect)  # type: ignore[arg-type]
    return file


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a folder with a framework's answer to every script; the framework starts once."""

    @cache
    def of(framework: str) -> Path:
        pytest.importorskip(framework)
        folder = tmp_path_factory.mktemp(framework)
        for name in NAMES:
            written(name, folder, DIALECTS[framework])
        command = [sys.executable, "-c", ANSWER, framework, str(folder)]
        subprocess.run(command, check=True, capture_output=True)
        return folder

    return of


@pytest.mark.slow
@pytest.mark.parametrize("framework", ["torch", "tensorflow"])
@pytest.mark.parametrize("name", NAMES)
def test_twin_agrees_step_by_step(
    name: str, framework: str, answers: Callable[[str], Path]
) -> None:
    folder = answers(framework)
    given = recipes.load(folder / f"{name}.npz")
    rows = recipes.compare(given, recipes.load(folder / f"{name}.answer.npz"))
    assert [row for row in rows if not row.agrees] == []
    assert len([row for row in rows if row.name.startswith("loss")]) >= 12
    # The tolerances are those of rounding: no perturbed run went another way at a kink. Where one does,
    # they become a hundred times as wide, and a mask's becomes the number of entries that changed.
    for row in rows:
        kind = row.name.partition(",")[0]
        scale = np.max(np.abs(given[f"result.{kind}"]))
        assert row.tolerance <= (0 if kind.startswith("masks") else 3e-3 * scale), row.name


@pytest.mark.long
@pytest.mark.parametrize("framework", ["torch", "tensorflow"])
def test_the_command_says_that_a_twin_agrees(
    framework: str, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip(framework)
    assert main(["recipe", "A5", "--with", framework]) == 0
    printed = capfd.readouterr().out
    assert f"refimpl and {framework}: 24 steps, 4 arrays at the end" in printed
    assert "DIFFERS" not in printed


@pytest.mark.parametrize("name", ["A1", "A4", "A5"])
def test_the_oracle_of_tolerances_runs_the_same_recipe(name: str, tmp_path: Path) -> None:
    given = recipes.load(written(name, tmp_path))
    exact = recipes.run(given, EXACTLY)
    np.testing.assert_allclose(exact["loss"], given["result.loss"], rtol=1e-4)
    masks = [key for key in exact if key.startswith("masks")]
    assert len(masks) == (8 if name == "A4" else 0)
    for key in masks:
        np.testing.assert_array_equal(exact[key], given[f"result.{key}"])


WRONG: dict[str, tuple[str, Any]] = {
    "no clip": ("clip", None),
    "a clip by each norm": ("clip", {"operation": "clip.norm", "max_norm": 1.0}),
    "no penalty": ("penalty", None),
    "a penalty of squares": ("penalty", {"operation": "penalty.l2", "strength": 1e-3}),
    "a hundredth more lr": ("optimizer", {"operation": "optim.sgd", "lr": 0.202}),
    "momentum": ("optimizer", {"operation": "optim.sgd", "lr": 0.2, "momentum": 0.01}),
}


@pytest.mark.parametrize("mistake", WRONG)
def test_a_step_that_is_wrong_is_seen(mistake: str, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from adapters import _recipes, _recipes_torch

    path = written("A5", tmp_path)
    stage, instead = WRONG[mistake]
    wrong = _recipes.load(path)
    assert wrong.description[stage] != instead
    wrong.description[stage] = instead
    rows = recipes.compare(recipes.load(path), _recipes_torch.run(wrong))
    assert any(not row.agrees for row in rows)


@pytest.mark.slow
def test_a_mask_that_is_forgotten_is_seen(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    from adapters import _recipes, _recipes_torch

    path = written("A4", tmp_path)
    given = recipes.load(path)
    wrong = _recipes.load(path)
    wrong.description["prune"]["threshold"] = 0.0
    answer = _recipes_torch.run(wrong)
    # as if only the masks were right
    answer |= {key: value for key, value in given.items() if key.startswith("masks")}
    assert any(not row.agrees for row in recipes.compare(given, answer))


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
    # y = (1.75, -2.9375), so the gradient is the outer product of 2y with x = (1, -2, 1/2)
    norm = 2 * math.hypot(1.75, -2.9375) * math.hypot(1, -2, 0.5)
    assert (
        f"'Linear' object has no attribute 'grad'; layer.weight.grad has norm {norm:.4f}" in printed
    )


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
