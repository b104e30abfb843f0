"""Checkpoints: runs go on bit for bit, files are whole or not there, damage is seen."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file

from refimpl import checkpoints, models
from refimpl.trainer import Plan, State, start, train

torch = pytest.importorskip("torch")

MODEL: list[dict[str, Any]] = [
    {"operation": "layer.dense", "units": 5},
    {"operation": "layer.relu"},
    {"operation": "layer.dense", "units": 3},
]
LOSS = {"operation": "loss.softmax_cross_entropy"}
PRUNE = {
    "score": "score.magnitude",
    "scope": "global",
    "parameters": [0, 2],
    "schedule": {"operation": "schedule.polynomial", "begin": 1, "end": 7, "final": 0.6,
                 "frequency": 2},
}  # fmt: skip
COSINE = {"schedule": "cosine", "lr": 0.1, "steps": 10, "warm_up": 3}
OPTIMIZERS: list[dict[str, Any]] = [
    {"operation": "optim.sgd", "lr": 0.1, "momentum": 0.9, "nesterov": True},
    {"operation": "optim.adamw", "lr": COSINE, "weight_decay": 0.1, "amsgrad": True},
    {"operation": "optim.rmsprop", "lr": COSINE, "centered": True, "momentum": 0.5},
    {"operation": "optim.adagrad", "lr": 0.1, "lr_decay": 0.5, "initial_accumulator": 0.1},
]


def batches(count: int) -> list[Any]:
    rng = np.random.default_rng(8)
    return [
        [(rng.normal(size=(4, 6)).astype(np.float32), rng.integers(0, 3, 4))] for _ in range(count)
    ]


def bits(state: State) -> dict[str, Any]:
    arrays = {"params": state.params, "masks": state.masks, **state.optimizer}
    return {
        name: [
            v if isinstance(v, int) or v is None else (v.dtype, v.shape, v.tobytes()) for v in vs
        ]
        for name, vs in arrays.items()
    } | {"at": state.step}


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda o: str(o["operation"]))
def test_a_run_goes_on_bit_for_bit(optimizer: dict[str, Any], tmp_path: Path) -> None:
    plan = Plan(optimizer, clip={"operation": "clip.global_norm", "max_norm": 1.0}, prune=PRUNE)
    params = models.initial_params(MODEL, (6,), seed=2)
    steps = batches(9)
    whole = train(MODEL, LOSS, plan, start(plan, params), steps)
    half = train(MODEL, LOSS, plan, start(plan, params), steps[:4])
    assert half.masks[0] is not None
    assert half.masks[1] is None
    checkpoints.save(tmp_path / "run.safetensors", plan, half)
    again, state = checkpoints.load(tmp_path / "run.safetensors")
    assert again == plan
    assert bits(state) == bits(half)
    assert bits(train(MODEL, LOSS, again, state, steps[4:])) == bits(whole)
    assert bits(half) != bits(whole)


def saved(tmp_path: Path) -> tuple[Path, State]:
    plan = Plan({"operation": "optim.sgd", "lr": 0.1})
    bf16 = np.array([1.5, -3.25, np.nan], dtype=ml_dtypes.bfloat16)
    params = [np.array([[1.0, -0.0], [np.inf, 5e-324]]), np.array(2.5, np.float16), bf16,
              np.zeros((0, 3), np.float32)]  # fmt: skip
    masks = [np.array([[True, False], [True, True]]), None, None, None]
    state = State(params, {"step": [1, 0, 2, 0]}, masks, 7)
    path = tmp_path / "odd.safetensors"
    checkpoints.save(path, plan, state)
    return path, state


def test_every_dtype_and_shape_comes_back(tmp_path: Path) -> None:
    path, state = saved(tmp_path)
    _, loaded = checkpoints.load(path)
    assert bits(loaded) == bits(state)
    assert loaded.params[2].dtype == ml_dtypes.bfloat16


def test_the_file_is_one_that_safetensors_reads(tmp_path: Path) -> None:
    path, state = saved(tmp_path)
    theirs = load_file(path)
    assert set(theirs) == {"params.0", "params.1", "params.2", "params.3", "masks.0"}
    assert theirs["params.0"].tobytes() == state.params[0].tobytes()
    assert theirs["masks.0"].tolist() == [[True, False], [True, True]]
    assert theirs["params.1"].shape == ()


def test_a_transposed_array_is_written_in_its_order(tmp_path: Path) -> None:
    plan = Plan({"operation": "optim.sgd", "lr": 0.1})
    array = np.arange(6.0).reshape(2, 3).T
    checkpoints.save(tmp_path / "t", plan, start(plan, [array]))
    np.testing.assert_array_equal(checkpoints.load(tmp_path / "t")[1].params[0], array)


def test_arrays_of_another_library(tmp_path: Path) -> None:
    plan = Plan({"operation": "optim.sgd", "lr": 0.1, "momentum": 0.9})
    state = start(plan, [torch.tensor([1.0, 2.0])])
    checkpoints.save(tmp_path / "t", plan, state)
    _, loaded = checkpoints.load(tmp_path / "t", to=torch.from_numpy)
    assert torch.equal(loaded.params[0], state.params[0])
    assert isinstance(loaded.optimizer["velocity"][0], torch.Tensor)


def test_every_damaged_byte_is_seen(tmp_path: Path) -> None:
    path, _ = saved(tmp_path)
    content = path.read_bytes()
    padding = 8 + int.from_bytes(content[:8], "little")
    for i in range(len(content)):
        if content[i : i + 1] == b" " and not content[i:padding].strip():
            continue  # a space after the header, which means nothing
        path.write_bytes(content[:i] + bytes([content[i] ^ 0x04]) + content[i + 1 :])
        with pytest.raises(
            ValueError, match=r"odd.safetensors is damaged or no checkpoint: .+"
        ) as e:
            checkpoints.load(path)
        assert "\n" not in str(e.value)


def test_every_truncated_file_is_seen(tmp_path: Path) -> None:
    path, _ = saved(tmp_path)
    content = path.read_bytes()
    for length in [*range(0, len(content), 7), len(content) - 1]:
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match="is damaged or no checkpoint"):
            checkpoints.load(path)
    path.write_bytes(content + b"\0")
    with pytest.raises(ValueError, match="checksum"):
        checkpoints.load(path)


@pytest.mark.parametrize("header", [b"[]", b"{}", b"3", b"[" * 100000, b'{"__metadata__": 5}'])
def test_other_files_are_no_checkpoints(header: bytes, tmp_path: Path) -> None:
    path = tmp_path / "other"
    path.write_bytes(len(header).to_bytes(8, "little") + header)
    with pytest.raises(ValueError, match="is damaged or no checkpoint"):
        checkpoints.load(path)


@pytest.mark.parametrize("broken", ["fsync", "replace"])
def test_a_failed_write_leaves_the_old_file(
    broken: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, state = saved(tmp_path)
    before = path.read_bytes()

    def fail(*_: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, broken, fail)
    plan = Plan({"operation": "optim.sgd", "lr": 0.2})
    with pytest.raises(OSError, match="no space left"):
        checkpoints.save(path, plan, state)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_file_cannot_hold_is_refused(tmp_path: Path) -> None:
    plan = Plan({"operation": "optim.sgd", "lr": 0.1})
    with pytest.raises(ValueError, match=r"holds no int16, found in params\.0"):
        checkpoints.save(
            tmp_path / "x", plan, State([np.zeros(2, np.int16)], {"step": [0]}, [None])
        )
    odd = Plan({"operation": "optim.sgd", "lr": 0.1, "tag": {1, 2}})
    with pytest.raises(ValueError, match="must be plain data"):
        checkpoints.save(tmp_path / "x", odd, State([], {"step": []}, []))
    assert list(tmp_path.iterdir()) == []


def test_the_plan_is_json_in_the_metadata(tmp_path: Path) -> None:
    path, _ = saved(tmp_path)
    content = path.read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    plan = json.loads(header["__metadata__"]["plan"])
    assert plan["optimizer"] == {"operation": "optim.sgd", "lr": 0.1}
