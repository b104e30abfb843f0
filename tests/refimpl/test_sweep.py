"""The sweep: folds that never touch the test part, a choice by hand, resuming, refusals."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from refimpl import sweep
from refimpl.__main__ import main
from refimpl.recipes import sweep_runs, training
from refimpl.recipes.report import Measured
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


@pytest.mark.skipif(os.name == "nt", reason="Windows has another Ctrl-C")
@pytest.mark.slow
def test_an_interrupted_sweep_goes_on_to_the_same_files(tmp_path: Path) -> None:
    options = [
        "--values",
        "0.5,0.9",
        "--epochs",
        "4",
        "--folds",
        "2",
        "--seeds",
        "2",
        "--layer",
        "each",
    ]
    command = [sys.executable, "-m", "refimpl", "sweep", "amount", *options, "--out"]
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    subprocess.run([*command, str(whole)], check=True, capture_output=True)

    runs = parts / "runs.jsonl"
    with subprocess.Popen([*command, str(parts)], stderr=subprocess.PIPE, text=True) as process:
        while process.poll() is None and not (runs.exists() and runs.read_text().count("\n") > 5):
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, complaint = process.communicate()
    assert process.returncode == 130
    assert re.fullmatch(
        r"secateurs: interrupted; \d+ of 24 runs are kept in .*, the same command does the others\n",
        complaint,
    )
    assert 5 <= runs.read_text().count("\n") - 1 < 24
    assert not (parts / "results.json").exists()

    subprocess.run([*command, str(parts)], check=True, capture_output=True)
    for file in ("runs.jsonl", "results.csv", "results.json"):
        assert (parts / file).read_bytes() == (whole / file).read_bytes()


def test_a_folder_keeps_the_runs_of_more_than_one_question(tmp_path: Path) -> None:
    options = ["--epochs", "1", "--folds", "2", "--out", str(tmp_path)]
    assert main(["sweep", "amount", "--values", "0.5,0.9", "--seeds", "2", *options]) == 0
    assert main(["sweep", "amount", "--values", "0.9", "--seeds", "1", *options]) == 0
    # doing nothing and 0.9, two folds, one seed
    assert (tmp_path / "results.csv").read_text().count("\n") == 1 + 2 * 2
    assert (tmp_path / "runs.jsonl").read_text().count("\n") == 1 + 3 * 2 * 2


def test_a_damaged_run_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    options = [
        "sweep",
        "amount",
        "--values",
        "0.5",
        "--epochs",
        "1",
        "--folds",
        "2",
        "--seeds",
        "1",
    ]
    assert main([*options, "--out", str(tmp_path)]) == 0
    runs = tmp_path / "runs.jsonl"
    for damage in ('{"layer": null}', "[1]", "{"):
        lines = runs.read_text().splitlines()
        runs.write_text("\n".join([*lines[:2], damage, *lines[3:]]) + "\n")
        capsys.readouterr()
        assert main([*options, "--out", str(tmp_path)]) == 2
        assert capsys.readouterr().err == f"secateurs: {runs}: line 3 is damaged\n"


def test_a_clip_and_a_penalty_reach_only_the_chosen_weight() -> None:
    part = training.parts("digits", 0, validation=0.9)
    trial = sweep_runs.Trial("mlp", "lambda", 1, 0, 1)
    model = sweep_runs.network("mlp", part.shape)
    free = trial._whole(part, model, [2], 0.0)
    shrunk = trial._whole(part, model, [2], 1.0)
    assert np.count_nonzero(free[2] == 0) == 0
    assert np.count_nonzero(shrunk[2] == 0) > 0.9 * shrunk[2].size
    assert np.count_nonzero(shrunk[0] == 0) == 0
    # a clip to nearly nothing leaves the chosen weight where it began, and the others train
    start = trial.initial(model, part)
    clipped = replace(trial, what="clip")._whole(part, model, [2], 1e-6)
    assert np.max(abs(clipped[2] - start[2])) < 1e-6
    assert np.max(abs(clipped[0] - start[0])) > 1e-3


@pytest.mark.parametrize(
    ("what", "expected"),
    [("amount", [0.0, 0.3, 0.7]), ("clip", ["none", 0.3, 0.7]), ("lambda", [0.0, 0.3, 0.7])],
)
def test_doing_nothing_comes_first(what: str, expected: list[object]) -> None:
    given = sweep.parser().parse_args([what, "--values", "0.3,0.7", "--out", "x"])
    assert sweep.candidates(given) == expected


def test_random_candidates_lie_within_the_grid_and_follow_the_seed() -> None:
    for what, (low, high) in {
        "amount": (0.5, 0.98),
        "clip": (0.03, 10),
        "lambda": (1e-4, 1e-2),
    }.items():
        given = sweep.parser().parse_args([what, "--random", "6", "--out", "x"])
        nothing, *drawn = sweep.candidates(given)
        assert nothing == sweep.NOTHING[what]
        assert len(drawn) == 6
        assert all(0.99 * low <= v <= 1.01 * high for v in drawn)
        assert sweep.candidates(given) == [nothing, *drawn]


def _row(value: object, sparsity: float, accuracy: float, lost: float) -> tuple[object, ...]:
    return ("all", value, *(Measured(v, 0.001, 4) for v in (sparsity, accuracy, lost)))


def test_what_is_chosen() -> None:
    rows = [_row("none", 0, 0.9, 0), _row(1.0, 0.8, 0.895, 0.005), _row(2.0, 0.9, 0.885, 0.015)]
    assert sweep.choose("amount", rows, 0.01)[1] == 1.0
    assert sweep.choose("amount", rows, 0.02)[1] == 2.0
    assert sweep.choose("amount", rows, 0.001)[1] == "none"
    assert sweep.choose("clip", rows, 0.01)[1] == "none"
    # of methods one that prunes
    assert sweep.choose("methods", rows, 0.01)[1] == 1.0


def test_without_matplotlib_there_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    options = ["--values", "0.5", "--epochs", "1", "--folds", "2", "--seeds", "1"]
    assert main(["sweep", "amount", *options, "--out", str(tmp_path)]) == 0
    said = capsys.readouterr()
    assert said.err == "matplotlib is not installed (pip install 'secateurs[plots]')\n"
    assert "over amount" in said.out
    assert sorted(f.name for f in tmp_path.iterdir()) == [
        "results.csv",
        "results.json",
        "runs.jsonl",
    ]


@pytest.mark.slow
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
    assert accuracy("gradual, fine-tuned") > accuracy("one-shot")


@pytest.mark.slow
@pytest.mark.parametrize("what", ["threshold", "clip", "lambda"])
def test_every_sweep_runs(what: str, tmp_path: Path) -> None:
    options = [
        *QUICK[2:],
        "--epochs",
        "1",
        "--random",
        "2",
        "--layer",
        "each",
        "--out",
        str(tmp_path),
    ]
    assert main(["sweep", what, *options]) == 0
    numbers = json.loads((tmp_path / "results.json").read_text())["numbers"]
    assert set(numbers) == {"weight 0", "weight 1"}


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["amount", "--folds", "1"], "--folds must be at least 2, got 1"),
        (["amount", "--values", "a"], "--values must be numbers as 0.5,0.9, got 'a'"),
        (["amount", "--layer", "7"], "--layer must be 'each' or one of 0 to 1, got '7'"),
        (["amount", "--loss", "2"], "--loss must be in [0, 1), got 2.0"),
        (
            ["amount", "--values", "0,1.5"],
            "--values of amount must be finite numbers from 0 to 1, got '0,1.5'",
        ),
        (
            ["lambda", "--values", "nan"],
            "--values of lambda must be finite numbers >= 0, got 'nan'",
        ),
        (["clip", "--values", "0,1"], "--values of clip must be finite numbers > 0, got '0,1'"),
        (["clip", "--values", "1", "--random", "2"], "give --values or --random, not both"),
        (
            ["methods", "--values", "1"],
            "methods are compared as they are, without --values and --random",
        ),
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
