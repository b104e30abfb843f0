"""The masks of ``prune_low_magnitude``: fractions, N:M patterns and blocks."""

from __future__ import annotations

from typing import Any

import tensorflow as tf
import tensorflow_model_optimization as tfmot
import tf_keras

from adapters.base import Operations, Unsupported

Array = Any
Outputs = dict[str, Any]
sparsity: Any = tfmot.sparsity.keras

operations = Operations()


class Held(tf_keras.layers.Layer, sparsity.PrunableLayer):
    """A layer that has one weight, which may be pruned."""

    def __init__(self, values: Array) -> None:
        """Remember the values that the weight begins with."""
        super().__init__(dtype=str(values.dtype))
        self.values = values

    def build(self, shape: Any) -> None:
        """Make the weight."""
        self.kernel = self.add_weight(
            "kernel", self.values.shape, initializer=lambda *_, **__: tf.constant(self.values)
        )

    def get_prunable_weights(self) -> list[Any]:
        """Return the weight."""
        return [self.kernel]

    def call(self, x: Any) -> Any:
        """Return what came in."""
        return x


def _pruned(weights: Array, scores: Array, amount: float, **options: Any) -> tuple[Array, Array]:
    """Return the mask after one training step of a layer whose weight is the scores, and what it leaves."""
    schedule = sparsity.ConstantSparsity(amount, begin_step=0, frequency=1)
    wrapper = sparsity.prune_low_magnitude(Held(scores), schedule, **options)
    x = tf.zeros([1, 1], scores.dtype)
    wrapper.build(x.shape)
    tf_keras.backend.set_value(wrapper.pruning_step, 0)  # as UpdatePruningStep does before training
    wrapper(x, training=True)
    ((_, mask, _),) = wrapper.pruning_vars
    return mask.numpy() != 0, tf.multiply(weights, tf.cast(mask, weights.dtype)).numpy()


def _checked(weights: Array, scores: Array | None, previous: Any) -> None:
    if previous is not None:
        raise Unsupported(
            "prune_low_magnitude replaces a mask and takes none that was there before"
        )
    if scores is None or scores.shape != weights.shape:
        raise Unsupported("prune_low_magnitude ranks the weights themselves")


WIDE = ("float64", "float32")
RANKED = {"masking": "multiply", "minimum_kept": 1, "rounding": "kept_half_even", "amount_dtype": "float32",
          "ties": "keep_all", "nan_score": "lowest"}  # fmt: skip


@operations.operation(
    "prune.fraction", WIDE, RANKED | {"score_sign": "ignored", "subnormals": "flush"}
)
def prune_fraction(
    weights: list[Any], scores: list[Any], previous: Any = None, *, amount: float | None = None,
    count: int | None = None, scope: str = "tensor",
) -> Outputs:  # fmt: skip
    """``prune_low_magnitude`` with ``ConstantSparsity``, each tensor by itself."""
    if count is not None or amount is None or scope != "tensor" or len(weights) != len(scores):
        raise Unsupported("prune_low_magnitude prunes a fraction of each weight")
    found = []
    for w, s in zip(weights, scores, strict=True):
        if w is None:
            found.append((None, None))
            continue
        _checked(w, s, previous)
        found.append(_pruned(w, s, amount))
    return {"masks": [mask for mask, _ in found], "weights": [w for _, w in found]}


def _magnitudes(scores: Array) -> Array:
    if (scores < 0).any():
        raise Unsupported("prune_low_magnitude ranks magnitudes, which are not negative")
    return scores


@operations.operation(
    "prune.n_m", ("float32",),
    {"remainder": "pad", "group_axis": "inputs", "ties": "highest_index_first", "nan_score": "highest",
     "masking": "multiply"},
)  # fmt: skip
def prune_n_m(
    weights: Array, scores: Array, previous: Array | None = None, *, n: int, m: int, axis: int
) -> Outputs:
    """``prune_low_magnitude`` with ``sparsity_m_by_n``: zeros among neighbours along the inputs."""
    _checked(weights, scores, previous)
    if weights.ndim not in (2, 4) or not -weights.ndim <= axis < weights.ndim:
        raise Unsupported("sparsity_m_by_n is for kernels of dense and convolution layers")
    if n == 0:
        raise Unsupported("sparsity_m_by_n keeps one of its neighbours at least")
    mask, left = _pruned(weights, _magnitudes(scores), 0.5, sparsity_m_by_n=(m - n, m))
    return {"mask": mask, "weights": left}


@operations.operation("prune.block", WIDE, RANKED)
def prune_block(
    weights: Array, scores: Array, previous: Array | None = None, *, block: list[int],
    amount: float, pool: str,
) -> Outputs:  # fmt: skip
    """``prune_low_magnitude`` with ``block_size`` and ``block_pooling_type``."""
    _checked(weights, scores, previous)
    if weights.ndim != 2:
        raise Unsupported("block_size is for matrices")
    pooling = {"mean": "AVG", "max": "MAX"}.get(pool, pool)
    mask, left = _pruned(
        weights, _magnitudes(scores), amount, block_size=tuple(block), block_pooling_type=pooling
    )
    return {"mask": mask, "weights": left}
