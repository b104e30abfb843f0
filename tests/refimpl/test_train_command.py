"""``python -m refimpl train`` and ``secateurs train``: what they print, write and refuse."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from refimpl import datasets
from refimpl.__main__ import main

QUICK = ["train", "--epochs", "1", "--batch-size", "128"]


def lines(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_an_epoch_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*QUICK[:2], "2", *QUICK[3:]]) == 0
    printed = lines(capsys.readouterr().out)
    assert [line[1] for line in printed] == ["1", "2"]
    assert float(printed[-1][5]) > 0.8


def test_the_same_seed_gives_the_same_run(capsys: pytest.CaptureFixture[str]) -> None:
    outputs = []
    for seed in ("1", "1", "2"):
        assert main([*QUICK, "--seed", seed]) == 0
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1] != outputs[2]


@pytest.mark.parametrize("other", ["torch", "array_api_strict"])
def test_every_backend_takes_the_same_steps(other: str, tmp_path: Path) -> None:
    pytest.importorskip(other)
    losses = []
    for name in ("numpy", other):
        trace = tmp_path / f"{name}.jsonl"
        assert (
            main([*QUICK, "--clip", "global_norm:1", "--backend", name, "--trace", str(trace)]) == 0
        )
        losses.append([json.loads(line)["loss"] for line in trace.read_text().splitlines()])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)


@pytest.mark.parametrize(
    "options",
    [
        ["--clip", "global_norm:0.1"],
        ["--clip", "norm:0.05"],
        ["--clip", "value:0.001"],
        ["--prune", "0.9"],
        ["--optimizer", "adam"],
        ["--optimizer", "rmsprop", "--lr", "0.002"],
        ["--optimizer", "adagrad"],
        ["--penalty", "l1:0.001"],
        ["--penalty", "elastic_net:0.001,0.01"],
        ["--penalty", "group_lasso:0.01"],
        ["--lr-schedule", "cosine"],
        ["--lr-schedule", "step:3"],
        ["--optimizer", '{"operation": "optim.sgd", "lr": 0.05, "weight_decay": 0.5}'],
        ["--momentum", "0"],
        ["--lr", "0.01"],
    ],
)
def test_every_option_has_an_effect(options: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(QUICK) == 0
    plain = capsys.readouterr().out
    assert main([*QUICK, *options]) == 0
    assert capsys.readouterr().out != plain


def test_pruning_reaches_its_sparsity(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*QUICK, "--prune", "0.75"]) == 0
    assert lines(capsys.readouterr().out)[-1][-1] == "0.750"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--clip", "sideways:1"], "--clip must be value:C"),
        (["--clip", "global_norm:-1"], "max_norm must be >= 0"),
        (["--data", "nowhere"], "--data must be digits"),
        (["--data", "nowhere,either"], "nowhere: cannot be read"),
        (["--model", "nowhere.json"], "nowhere.json"),
        (["--optimizer", "lion"], "unknown optimizer 'optim.lion'"),
        (["--prune", "1.5"], "final"),
        (["--penalty", "l3:1"], "--penalty must be l1"),
        (["--lr-schedule", "sideways"], "unknown learning-rate schedule 'sideways'"),
        (["--resume", "nowhere.safetensors"], "nowhere.safetensors"),
    ],
)
def test_bad_options_get_one_line_and_2(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*QUICK, *options]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert message in printed.err
    assert printed.err.count("\n") == 1


NORMAL = [
    {"operation": "layer.flatten"},
    {"operation": "layer.dense", "units": 16},
    {"operation": "layer.batch_norm"},
    {"operation": "layer.relu"},
    {"operation": "layer.dropout", "rate": 0.25},
    {"operation": "layer.dense", "units": 10},
]
LONGER = ["train", "--epochs", "3", "--batch-size", "256"]
EVERYTHING = [
    "--lr-schedule",
    "cosine",
    "--prune",
    "0.5",
    "--penalty",
    "l2:0.0001",
    "--clip",
    "norm:0.5",
]


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "rmsprop", "adagrad"])
def test_a_resumed_run_is_the_same_run_bit_for_bit(optimizer: str, tmp_path: Path) -> None:
    """Batch norm's running values, dropout's masks, momentum, masks and schedules included."""
    model = tmp_path / "model.json"
    model.write_text(json.dumps(NORMAL))
    run = [*LONGER, "--model", str(model), "--optimizer", optimizer, *EVERYTHING]
    whole, part, rest = (tmp_path / name for name in ("whole", "part", "rest"))
    traces = {path: path.with_suffix(".jsonl") for path in (whole, part, rest)}

    def go(path: Path, *more: str) -> None:
        written = ["--checkpoint", str(path), "--trace", str(traces[path])]
        assert main([*run, *written, *more]) == 0

    go(whole)
    go(part, "--stop-after", "1")
    assert part.read_bytes() != whole.read_bytes()
    go(rest, "--resume", str(part))
    assert rest.read_bytes() == whole.read_bytes()
    assert traces[part].read_text() + traces[rest].read_text() == traces[whole].read_text()


def test_a_checkpoint_of_another_run_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = str(tmp_path / "saved")
    assert main([*QUICK, "--checkpoint", saved]) == 0
    capsys.readouterr()
    other = tmp_path / "model.json"
    other.write_text(json.dumps(NORMAL))
    for options, message in (
        (["--momentum", "0.5"], "was written with other options"),
        (["--model", str(other)], "is a checkpoint of another model"),
    ):
        assert main([*QUICK, "--resume", saved, *options]) == 2
        printed = capsys.readouterr()
        assert message in printed.err
        assert printed.err.count("\n") == 1


def test_the_trace_has_the_rate_of_each_step(tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    assert main([*QUICK, "--lr-schedule", "cosine", "--trace", str(trace)]) == 0
    rates = [json.loads(line)["lr"] for line in trace.read_text().splitlines()]
    assert rates[0] == 0.05
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 0.01


def test_a_backend_that_is_not_there_is_3(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*QUICK, "--backend", "numpy", "--device", "cuda:0"]) == 3
    assert capsys.readouterr().err == "secateurs: numpy has no device 'cuda:0', only cpu\n"


def test_cupy_without_a_gpu_says_so_in_one_line() -> None:
    command = [sys.executable, "-m", "refimpl", "train", "--backend", "cupy"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode == 0:
        pytest.skip("there is a CUDA device here")
    assert done.returncode == 3
    assert done.stderr.count("\n") == 1


def test_idx_files(tmp_path: Path) -> None:
    pictures = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
    images, labels = tmp_path / "images", tmp_path / "labels"

    def header(*shape: int) -> bytes:
        return bytes([0, 0, 8, len(shape)]) + b"".join(n.to_bytes(4, "big") for n in shape)

    images.write_bytes(header(2, 3, 4) + pictures.tobytes())
    labels.write_bytes(header(2) + bytes([7, 1]))
    x, y = datasets.idx(images, labels)
    np.testing.assert_array_equal(x[..., 0] * 255, pictures.astype(np.float32))
    assert y.tolist() == [7, 1]
    damaged: dict[str, Any] = {
        "not an IDX file": b"GIF89a" + bytes(20),
        "do not fill shape": header(2, 3, 4) + bytes(5),
        "cannot be read": b"\x1f\x8b" + bytes(9),
    }
    for message, content in damaged.items():
        images.write_bytes(content)
        with pytest.raises(ValueError, match=message):
            datasets.idx(images, labels)
    images.write_bytes(header(3, 3, 4) + bytes(36))
    with pytest.raises(ValueError, match="do not belong together"):
        datasets.idx(images, labels)


@pytest.mark.parametrize("command", ["train --epochs 2", "recipe A1 --claim list", "recipe --help"])
def test_a_reader_who_has_seen_enough_is_not_told_of_a_broken_pipe(command: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    run = subprocess.run(
        [sys.executable, "-m", "refimpl", *command.split()],
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        timeout=120,
    )
    os.close(writer)
    # argparse itself keeps silent where its help is not read, if the stream is not buffered.
    codes = {0, 1} if "--help" in command else {1}
    assert run.returncode in codes
    assert run.stderr == ""
