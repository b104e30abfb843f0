"""Pruned models in files: back as they were, refused when damaged; the compress command."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from refimpl import compress, model_files, models
from refimpl.__main__ import main
from refimpl.compression import Sizes
from refimpl.model_files import Stored
from refimpl.recipes.compress_report import Measures, report_of

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


@pytest.mark.parametrize("packing", ["none", "gzip"])
def test_in_8_bits_a_weight_is_within_half_a_step(packing: str, tmp_path: Path) -> None:
    file, before = tmp_path / "model", stored()
    model_files.save(file, before, form="int8", packing=packing)
    after = model_files.load(file)
    assert (after.model, after.input_shape) == (MODEL, SHAPE)
    for a, b in zip(before.params, after.params, strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        if a.ndim == 1:
            np.testing.assert_array_equal(a, b)
            continue
        step = abs(a).max(axis=tuple(range(a.ndim - 1))) / 127
        # Half a step, and the roundings of the step, of w/s and of q·s to float32.
        assert (abs(a - b) <= step / 2 + 4 * 2.0**-24 * abs(a).max()).all()
        assert (abs(a - b) > step / 4).any()
        assert (b[a == 0] == 0).all()
    with pytest.raises(ValueError, match="only float32"):
        model_files.save(file, stored("float64"), form="int8")


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


def test_zstd_or_a_line_that_says_what_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("compression.zstd", "zstandard"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ValueError, match=r"zstd needs Python 3\.14 or the package zstandard"):
        model_files.save(tmp_path / "model", stored(), packing="zstd")
    assert "dense, zstd" not in [label for label, *_ in compress.forms()]
    (tmp_path / "packed").write_bytes(model_files.ZSTD + b"anything")
    with pytest.raises(ValueError, match="holds no model: zstd needs"):
        model_files.load(tmp_path / "packed")
    monkeypatch.undo()
    if not model_files.has_zstd():
        pytest.skip("zstd is not installed")
    model_files.save(tmp_path / "model", stored(), packing="zstd")
    assert (tmp_path / "model").read_bytes().startswith(model_files.ZSTD)
    np.testing.assert_array_equal(
        model_files.load(tmp_path / "model").params[0], stored().params[0]
    )
    assert "dense, zstd" in [label for label, *_ in compress.forms()]


@pytest.mark.parametrize("model", ["mlp", pytest.param("cnn", marks=pytest.mark.slow)])
def test_units_that_are_masked_are_removed_and_outputs_stay(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "report.json"
    options = ["--model", model, "--epochs", "1", "--out", str(tmp_path / "out")]
    assert main(["compress", *options, "--json", str(report)]) == 0
    printed = capsys.readouterr().out
    assert "the mask alone buys nothing" in printed
    assert "Time of 256 images  (milliseconds over network" in printed
    assert "NOT those" not in printed
    numbers = json.loads(report.read_text())["numbers"]
    masked, removed = numbers["units masked"], numbers["units removed"]
    assert masked["bytes"] == numbers["dense"]["bytes"] > removed["bytes"]
    assert masked["dense"] == numbers["dense"]["dense"] > removed["dense"]
    assert masked["accuracy"] == pytest.approx(removed["accuracy"], abs=0.003)
    assert removed["apart"] <= removed["allowed"]
    assert removed["within"] is True
    assert removed["multiply_adds"] < masked["multiply_adds"] == numbers["dense"]["multiply_adds"]
    assert numbers["weights masked"]["CSR"] < numbers["weights masked"]["dense"]
    again = ["--model-file", str(tmp_path / "out" / "units-removed.safetensors")]
    assert main(["compress", *again, "--out", str(tmp_path / "again")]) == 0


def test_a_busy_machine_is_mentioned() -> None:
    def of(milliseconds: float, multiply_adds: int) -> Measures:
        size = Sizes(100, 20, 400, multiply_adds, multiply_adds)
        files = {"dense": 500, "dense, gzip": 200, "CSR": 300, "int8": 130, "int8, gzip": 60}
        return Measures(size, 0.9, 0.9, milliseconds, 2.0, files)

    def said(*times: float) -> str:
        names = ("dense", "units masked", "units removed")
        found = dict(
            zip(names, (of(t, w) for t, w in zip(times, (50, 50, 20), strict=True)), strict=True)
        )
        return "\n".join(report_of(Path("x"), found, {"units removed": (0.0, 1.0, True)}).notes)

    assert "uncertain" not in said(1.0, 1.2, 0.3)
    assert "they are from 1.00 to 1.40 ms" in said(1.0, 1.4, 0.3)


def test_outputs_that_are_not_those_of_the_masked_model_are_named() -> None:
    x = np.random.default_rng(5).normal(size=(3, *SHAPE)).astype(np.float32)
    before = stored()
    before.params[0][..., 1], before.params[1][1] = 0, 0  # a filter that gives zero
    after = compress.removed(before)
    assert after.params[0].shape[-1] == 2
    assert compress.apart(before, after, x)[2]
    after.params[2][0, 0] += 0.01
    assert not compress.apart(before, after, x)[2]


def test_wrong_usage_of_compress_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken"
    broken.write_bytes(b"12345678nonsense")
    wrong = (
        ["--amount", "2"],
        ["--epochs", "0"],
        ["--plot", str(tmp_path / "nowhere" / "x.png")],
        ["--model-file", str(broken), "--out", str(tmp_path)],
    )
    for arguments in wrong:
        assert main(["compress", *arguments]) == 2
        complaint = capsys.readouterr().err
        assert complaint.startswith("secateurs: ")
        assert complaint.count("\n") == 1
