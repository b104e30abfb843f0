"""The handwritten digits that scikit-learn ships, frozen: 1,797 images of 8×8 pixels with 17 grey levels.

Source: E. Alpaydin, C. Kaynak: Optical Recognition of Handwritten Digits, UCI Machine Learning Repository
1998 (CC BY 4.0); the test part, as distributed with scikit-learn. ``python -m conformance.digits`` writes
the frozen file again from an installed scikit-learn.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save

from conformance.formats import Tensor

FILE = Path(__file__).parent / "data" / "digits.safetensors"


def load() -> tuple[Tensor, Tensor]:
    """Return images (1797, 8, 8, 1) with values k/16 as float64, and labels (1797,) as int64."""
    stored = load_file(FILE)
    images = stored["images"].astype(np.float64)[..., None] / 16
    return images, stored["labels"].astype(np.int64)


def frozen() -> bytes:
    """Return the frozen file's bytes, made from scikit-learn's copy."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = digits.images.astype(np.uint8)
    return save({"images": images, "labels": digits.target.astype(np.uint8)})


if __name__ == "__main__":
    from conformance.build import write

    FILE.parent.mkdir(exist_ok=True)
    write(FILE, frozen())
