"""Both loaders refuse damaged files in one line."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import numpy as np
import pytest

from refimpl import datasets


def test_the_digits_are_what_scikit_learn_ships() -> None:
    images, labels = datasets.digits()
    assert images.shape == (1797, 8, 8, 1)
    # the first is a nought, its first row 0 0 5 13 9 1 0 0 of 16
    assert labels[:5].tolist() == [0, 1, 2, 3, 4]
    assert (16 * images[0, 0, :, 0]).tolist() == [0, 0, 5, 13, 9, 1, 0, 0]


@pytest.mark.parametrize("keep", [0, 5, 100, 50_000, -1])
def test_damaged_digits_are_one_line(
    keep: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = tmp_path / "digits.npy"
    broken.write_bytes(datasets.DIGITS.read_bytes()[:keep])
    monkeypatch.setattr(datasets, "DIGITS", broken)
    with pytest.raises(ValueError, match=r"digits\.npy: ") as caught:
        datasets.digits()
    assert "\n" not in str(caught.value)


def test_pickles_and_other_tables_are_no_digits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets, "DIGITS", tmp_path / "digits.npy")
    objects, other = io.BytesIO(), io.BytesIO()
    header = {"descr": "|O", "fortran_order": False, "shape": (1,)}
    np.lib.format.write_array_header_1_0(objects, header)  # what would follow is a pickle
    np.save(other, np.zeros((3, 4), np.uint8))
    for table in (objects, other):
        (tmp_path / "digits.npy").write_bytes(table.getvalue())
        with pytest.raises(ValueError, match=r"digits\.npy: "):
            datasets.digits()


def test_a_gzip_file_that_is_damaged_inside_is_one_line(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    content = b"\0\0\x08\x01" + (5000).to_bytes(4, "big") + rng.bytes(5000)
    packed = bytearray(gzip.compress(content))
    for place in (20, 1000, len(packed) - 6):
        broken = bytearray(packed)
        broken[place] ^= 0xFF
        file = tmp_path / "labels.gz"
        file.write_bytes(broken)
        with pytest.raises(ValueError, match=r"labels\.gz: ") as caught:
            datasets.read_idx(file)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("length", [4, 5, 8, 11])
def test_a_file_that_ends_in_its_header_is_named(length: int, tmp_path: Path) -> None:
    header = b"\0\0\x08\x02" + (3).to_bytes(4, "big") + (5).to_bytes(4, "big")
    file = tmp_path / "images"
    file.write_bytes(header[:length])
    with pytest.raises(ValueError, match="images: ends within its header"):
        datasets.read_idx(file)
