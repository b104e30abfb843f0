"""Pruned models in files: back as they were, refused when damaged; the compress command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from refimpl import compress, model_files, models
from refimpl.__main__ import main
from refimpl.model_files import Stored

MODEL: list[dict[str, Any]] = [
    {"operation": "layer.conv2d", "filters": 3, "kernel": [2, 3]},
    {"operation": "layer.relu"},
    {"operation": "layer.flatten"},
    {"operation": "layer.dense", "units": 4},
]
SHAPE = (4, 5, 2)


def stored(dtype: str = "float32", zeros: float = 0.7) -> Stored:
    rng = np.random.default_rng(1)
    params = [
        rng.normal(size=p.shape).astype(dtype) for p in models.initial_params(MODEL, SHAPE, 0)
    ]
    for p in params[::2]:
        p[rng.random(p.shape) < zeros] = 0
    return Stored(MODEL, params, SHAPE)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("form", ["dense", "csr"])
@pytest.mark.parametrize("packing", ["none", "gzip"])
def test_a_model_comes_back_as_it_was(dtype: str, form: str, packing: str, tmp_path: Path) -> None:
    file, before = tmp_path / "model", stored(dtype)
    size = model_files.save(file, before, form=form, packing=packing)
    assert file.stat().st_size == size
    after = model_files.load(file)
    assert (after.model, after.input_shape) == (MODEL, SHAPE)
    for a, b in zip(before.params, after.params, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def test_the_dense_file_is_safetensors(tmp_path: Path) -> None:
    load_file = pytest.importorskip("safetensors.numpy").load_file
    model_files.save(tmp_path / "model", stored())
    tensors = load_file(tmp_path / "model")
    np.testing.assert_array_equal(tensors["2"], stored().params[2])


def test_rows_pay_from_half_zeros_on(tmp_path: Path) -> None:
    wide = [{"operation": "layer.dense", "units": 100}]
    rng = np.random.default_rng(2)

    def sizes(zeros: float) -> tuple[int, int]:
        weight = rng.normal(size=(200, 100)).astype(np.float32)
        weight[rng.random(weight.shape) < zeros] = 0
        model = Stored(wide, [weight, np.ones(100, np.float32)], (200,))
        dense, rows = (
            model_files.save(tmp_path / form, model, form=form) for form in ("dense", "csr")
        )
        return dense, rows

    dense, rows = sizes(0.3)
    assert rows > dense
    dense, rows = sizes(0.9)
    assert rows < dense / 3


@pytest.mark.parametrize("packing", ["none", "gzip"])
def test_damage_is_one_line(packing: str, tmp_path: Path) -> None:
    file = tmp_path / "model"
    model_files.save(file, stored(), packing=packing)
    whole = file.read_bytes()
    for broken in (b"", whole[:5], whole[: len(whole) // 2], whole[:-1], b"\x80\x04." + whole[3:],
                   whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:]):  # fmt: skip
        file.write_bytes(broken)
        with pytest.raises(ValueError, match="is damaged or holds no model: ") as caught:
            model_files.load(file)
        assert "\n" not in str(caught.value)


def test_sparse_inference_is_the_dense_one() -> None:
    sparse = pytest.importorskip("scipy.sparse")
    model = stored("float64")
    x = np.random.default_rng(3).normal(size=(6, *SHAPE))
    matrices = [
        sparse.csr_array(p.reshape(-1, p.shape[-1]).T) if p.ndim > 1 else p for p in model.params
    ]
    expected, _ = models.forward(MODEL, model.params, x)
    np.testing.assert_allclose(compress.sparse_forward(model, matrices, x), expected, rtol=1e-12)


def test_units_that_are_masked_are_removed_and_accuracy_stays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "report.json"
    options = ["--model", "mlp", "--epochs", "1", "--out", str(tmp_path / "out")]
    assert main(["compress", *options, "--json", str(report)]) == 0
    assert "A mask alone buys nothing" in capsys.readouterr().out
    numbers = json.loads(report.read_text())["numbers"]
    masked, removed = numbers["units masked"], numbers["units removed"]
    assert masked["bytes"] == numbers["dense"]["bytes"] > removed["bytes"]
    assert masked["accuracy"] == pytest.approx(removed["accuracy"], abs=0.003)
    assert removed["multiply_adds"] < masked["multiply_adds"]
    assert numbers["weights masked"]["CSR"] < numbers["weights masked"]["dense"]
    again = ["--model-file", str(tmp_path / "out" / "units-removed.safetensors")]
    assert main(["compress", *again, "--out", str(tmp_path / "again")]) == 0


def test_wrong_usage_of_compress_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken"
    broken.write_bytes(b"12345678nonsense")
    for arguments in (["--amount", "2"], ["--model-file", str(broken), "--out", str(tmp_path)]):
        assert main(["compress", *arguments]) == 2
        complaint = capsys.readouterr().err
        assert complaint.startswith("secateurs: ")
        assert complaint.count("\n") == 1
