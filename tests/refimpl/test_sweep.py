"""The sweep: folds that never touch the test part, a choice by hand, resuming, refusals."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from refimpl import sweep
from refimpl.__main__ import main
from refimpl.recipes.training import Part

QUICK = ["--epochs", "3", "--folds", "2", "--seeds", "1"]


def test_folds_hold_each_example_out_once() -> None:
    part = Part(np.arange(11.0)[:, None], np.arange(11))
    found = list(sweep.folds(part, 3, seed=4))
    held_out = np.concatenate([data.validation.labels for data in found])
    assert sorted(held_out.tolist()) == list(range(11))
    for data in found:
        assert not set(data.train.labels) & set(data.validation.labels)
        assert len(data.train.labels) + len(data.validation.labels) == 11
        assert len(data.test.labels) == 0


def test_the_largest_sparsity_within_the_loss_is_chosen_and_runs_are_resumed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [
        "sweep",
        "amount",
        "--values",
        "0,0.3,0.99",
        *QUICK,
        "--loss",
        "0.03",
        "--out",
        str(tmp_path),
    ]
    assert main(command) == 0
    lines = (tmp_path / "runs.jsonl").read_text().splitlines()
    assert len(lines) == 1 + 3 * 2
    rows = [json.loads(line) for line in lines[1:]]
    assert [row["sparsity"] for row in rows if row["value"] == 0.3] == pytest.approx(
        [0.3, 0.3], abs=1e-3
    )
    chosen = json.loads((tmp_path / "results.json").read_text())["numbers"]["all weights"]
    mean = {v: np.mean([r["accuracy"] for r in rows if r["value"] == v]) for v in (0, 0.3, 0.99)}
    assert mean[0] - mean[0.99] > 0.03 >= mean[0] - mean[0.3]
    assert chosen["chosen"] == 0.3
    assert (tmp_path / "results.csv").read_text().count("\n") == 7

    # two runs are lost, one of them cut off in the middle of its line: these two are done again
    (tmp_path / "runs.jsonl").write_text("\n".join(lines[:-2]) + "\n" + lines[-2][:9])
    capsys.readouterr()
    assert main(command) == 0
    assert (tmp_path / "runs.jsonl").read_text().splitlines() == lines
    assert "chosen amount 0.3" in capsys.readouterr().out


@pytest.mark.long
def test_methods_are_compared_on_the_same_budget(tmp_path: Path) -> None:
    options = ["--epochs", "4", "--folds", "2", "--seeds", "1", "--out", str(tmp_path)]
    assert main(["sweep", "methods", *options]) == 0
    rows = [json.loads(line) for line in (tmp_path / "runs.jsonl").read_text().splitlines()[1:]]
    for row in rows:
        wanted = 0.0 if row["value"] == "dense" else 0.9
        assert row["sparsity"] == pytest.approx(wanted, abs=0.01)

    def accuracy(method: str) -> float:
        return float(np.mean([r["accuracy"] for r in rows if r["value"] == method]))

    assert accuracy("one-shot, fine-tuned") > accuracy("one-shot")
    assert accuracy("gradual") > accuracy("one-shot")


@pytest.mark.long
@pytest.mark.parametrize("what", ["threshold", "clip", "lambda"])
def test_every_sweep_runs(what: str, tmp_path: Path) -> None:
    options = [*QUICK, "--random", "2", "--layer", "each", "--out", str(tmp_path)]
    assert main(["sweep", what, *options]) == 0


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["amount", "--folds", "1"], "--folds must be at least 2, got 1"),
        (["amount", "--values", "a"], "--values must be numbers as 0.5,0.9, got 'a'"),
        (["amount", "--layer", "7"], "--layer must be 'each' or one of 0 to 1, got '7'"),
        (["amount", "--loss", "2"], "--loss must be in [0, 1), got 2.0"),
    ],
)
def test_wrong_usage_is_one_line(
    arguments: list[str], line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["sweep", *arguments, "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"secateurs: {line}\n"


def test_a_folder_of_another_sweep_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "runs.jsonl").write_text('{"what": "clip"}\n')
    assert main(["sweep", "amount", *QUICK, "--out", str(tmp_path)]) == 2
    assert "is of another sweep" in capsys.readouterr().err
