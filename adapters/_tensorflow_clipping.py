"""TensorFlow's clipping: ``tf.clip_by_global_norm``, ``tf.clip_by_norm`` and ``tf.clip_by_value``."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from adapters._tensorflow_arrays import Outputs, Tensors, each
from adapters.base import Operations, Unsupported, interval

operations = Operations()


def _only_two(ord: float) -> None:
    if ord != 2:
        raise Unsupported("TensorFlow clips by the 2-norm only")


@operations.operation(
    "clip.global_norm",
    dialect={
        "norm": "naive", "below_limit": "rescaled", "zero_over_zero": "nan",
        "infinite_limit": "nan", "negative_limit": "ignore", "nan_limit": "nan",
        "subnormals": "flush", "accumulate": "input_dtype", "norm_dtype": "input_dtype",
        "duplicates": "twice",
    },
)  # fmt: skip
def clip_global_norm(grads: Tensors, *, max_norm: float, ord: float) -> Outputs:
    """``tf.clip_by_global_norm``."""
    _only_two(ord)
    clipped, total = tf.clip_by_global_norm(grads, max_norm)
    return {"grads": clipped, "total_norm": total}


@operations.operation(
    "clip.norm",
    dialect={
        "nonfinite": "multiply", "norm": "naive", "below_limit": "rescaled",
        "zero_over_zero": "nan", "infinite_limit": "nan", "negative_limit": "zeros",
        "nan_limit": "nan", "subnormals": "flush", "accumulate": "input_dtype",
        "norm_dtype": "input_dtype",
    },
)  # fmt: skip
def clip_norm(grads: Tensors, *, max_norm: float, ord: float) -> Outputs:
    """``tf.clip_by_norm``, which returns no norm: the norms are those of ``tf.norm``."""
    _only_two(ord)
    clipped = each(lambda g: tf.clip_by_norm(g, max_norm), grads)
    return {"grads": clipped, "norms": each(tf.norm, grads)}


@operations.operation(
    "clip.value",
    dialect={"crossed_bounds": "min_wins", "nan_limit": "nan", "subnormals": "flush"},
)
def clip_value(
    grads: Tensors,
    *,
    min: float | None = None,
    max: float | None = None,
    range: float | None = None,
) -> Outputs:
    """``tf.clip_by_value``; a bound that is not given is an infinite one."""
    min, max = interval(
        min, max, range, "tf.clip_by_value takes two bounds, and no width beside them"
    )
    if min is None and max is None:
        raise Unsupported("tf.clip_by_value cannot be called without a bound")
    low = -np.inf if min is None else min
    high = np.inf if max is None else max
    return {"grads": each(lambda g: tf.clip_by_value(g, low, high), grads)}
