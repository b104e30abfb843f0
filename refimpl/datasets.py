"""Data to train on: the embedded handwritten digits, or files in MNIST's IDX format.

Both loaders return images (N, height, width, 1) as float32 between 0 and 1, and labels (N,) as int64.
"""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import Any

import numpy as np

Images = np.ndarray[Any, Any]

DIGITS = Path(__file__).parent / "data" / "digits.npy"
IDX_UINT8 = 0x08


def digits() -> tuple[Images, Images]:
    """Return the 1,797 digits of 8×8 pixels that scikit-learn ships (Alpaydin & Kaynak, UCI 1998).

    Raises ValueError, in one line, for a file that is missing or damaged.
    """
    try:
        table = np.load(DIGITS, allow_pickle=False)
    except (OSError, EOFError, ValueError) as error:
        raise ValueError(f"{DIGITS}: cannot be read: {error}") from None
    if table.ndim != 2 or table.shape[1] != 65 or table.dtype != np.uint8:
        raise ValueError(f"{DIGITS}: not a table of 64 pixels and a label, install secateurs again")
    images = table[:, :64].reshape(-1, 8, 8, 1).astype(np.float32) / 16
    return images, table[:, 64].astype(np.int64)


def idx(images: str | Path, labels: str | Path) -> tuple[Images, Images]:
    """Return images and labels of two IDX files (plain or ``.gz``), as MNIST is distributed.

    Raises:
        ValueError: a file is missing or damaged, or the two do not belong together; one line.
    """
    pictures, classes = read_idx(images), read_idx(labels)
    if pictures.ndim != 3 or classes.ndim != 1 or len(pictures) != len(classes):
        raise ValueError(
            f"{images} and {labels} do not belong together: shapes {pictures.shape} and {classes.shape}"
        )
    return pictures[..., None].astype(np.float32) / 255, classes.astype(np.int64)


def read_idx(path: str | Path) -> Images:
    """Return the array of one IDX file of unsigned bytes; ValueError in one line if it is damaged."""
    try:
        raw = Path(path).read_bytes()
        if raw[:2] == b"\x1f\x8b":
            raw = gzip.decompress(raw)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path}: cannot be read: {error}") from None
    if len(raw) < 4 or raw[:2] != b"\0\0" or raw[2] != IDX_UINT8:
        raise ValueError(f"{path}: not an IDX file of unsigned bytes")
    header = 4 + 4 * raw[3]
    if len(raw) < header:
        raise ValueError(f"{path}: ends within its header")
    shape = tuple(int(n) for n in np.frombuffer(raw[4:header], ">u4"))
    if len(raw) - header != math.prod(shape):
        raise ValueError(f"{path}: {len(raw) - header} bytes of data do not fill shape {shape}")
    return np.frombuffer(raw[header:], np.uint8).reshape(shape)


def split(count: int, seed: int, held_out: float = 0.2) -> tuple[Images, Images]:
    """Return the indices to train on and those held out, by a seeded shuffle."""
    order = np.random.default_rng(seed).permutation(count)
    border = count - round(held_out * count)
    return order[:border], order[border:]
