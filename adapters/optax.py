"""Optax, called as a user calls it: gradient transformations, projections, losses, MultiSteps; JAX's layers."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from optax import projections

from adapters import _optax_layers, _optax_training
from adapters._jax_cache import keep_compiled
from adapters.base import WITH_COMPLEX, Adapter, Unsupported, interval

keep_compiled()
jax.config.update("jax_enable_x64", True)  # without it JAX has no float64

Tensor = Any
Tensors = list[Any]
Outputs = dict[str, Any]

WIDE = ("float64", "float32")

adapter = Adapter(
    "optax",
    version=f"{optax.__version__}+jax.{jax.__version__}",
    homepage="https://optax.readthedocs.io",
    to_native=jnp.asarray,
    to_numpy=np.asarray,
    rejections=(TypeError,),  # how JAX refuses shapes and dtypes
)


def _only_two(ord: float) -> None:
    if ord != 2:
        raise Unsupported("Optax clips by the 2-norm only")


# What is called is compiled by jax.jit, as Optax's own examples are: eagerly it would take ten times as long.


def _transformed(transformation: Any, updates: Any, params: Any = None) -> Any:
    """Return what a gradient transformation makes of updates; ``None`` is no leaf of a JAX tree."""
    update = jax.jit(lambda u, p: transformation.update(u, transformation.init(p), p)[0])
    return update(updates, params)


def _norm(tree: Any) -> Tensor:
    norm = jax.jit(optax.tree.norm)(tree)
    return (
        norm if jax.tree.leaves(tree) else norm.astype(jnp.float32)
    )  # a Python number has 64 bits


def _other_axes(tensor: Tensor, axis: int | list[int]) -> tuple[int, ...]:
    """Return the axes that ``axis`` does not name; which of its own it would refuse is not asked."""
    named = axis if isinstance(axis, list) else [axis]
    groups = {a % tensor.ndim for a in named if -tensor.ndim <= a < tensor.ndim}
    if len(groups) != len(named):
        raise Unsupported("Optax takes the other axes: those that the norms run over")
    return tuple(a for a in range(tensor.ndim) if a not in groups)


CLIP_NORM = {
    "nonfinite": "multiply", "norm": "naive", "accumulate": "input_dtype",
    "norm_dtype": "input_dtype", "at_equal": "rescaled", "zero_over_zero": "nan",
    "infinite_limit": "multiply", "nan_limit": "nan", "negative_limit": "flip_sign",
}  # fmt: skip


@adapter.operation("clip.global_norm", WITH_COMPLEX, CLIP_NORM | {"duplicates": "twice"})
def clip_global_norm(grads: Tensors, *, max_norm: float, ord: float) -> Outputs:
    """``optax.clip_by_global_norm``, which returns no norm: the norm is that of ``optax.tree.norm``."""
    _only_two(ord)
    clipped = _transformed(optax.clip_by_global_norm(max_norm), grads)
    return {"grads": clipped, "total_norm": _norm(grads)}


@adapter.operation("clip.norm", WITH_COMPLEX, CLIP_NORM)
def clip_norm(grads: Tensors, *, max_norm: float, ord: float) -> Outputs:
    """``optax.clip_by_global_norm`` on one tensor at a time."""
    _only_two(ord)
    clip = optax.clip_by_global_norm(max_norm)
    return {
        "grads": [None if g is None else _transformed(clip, g) for g in grads],
        "norms": [None if g is None else _norm(g) for g in grads],
    }


@adapter.operation(
    "clip.value",
    dialect={"crossed_bounds": "max_wins", "nan_limit": "nan", "subnormals": "flush"},
)
def clip_value(
    grads: Tensors,
    *,
    min: float | None = None,
    max: float | None = None,
    range: float | None = None,
) -> Outputs:
    """``optax.clip``, whose interval is symmetric; ``optax.tree.clip`` for others."""
    min, max = interval(min, max, range, "optax.clip has no width beside its bounds")
    if min is None and max is None:
        raise Unsupported("optax.clip cannot be called without a bound")
    if max is not None and min == -max:
        return {"grads": _transformed(optax.clip(max), grads)}
    return {"grads": jax.jit(lambda tree: optax.tree.clip(tree, min, max))(grads)}


@adapter.operation(
    "clip.unitwise",
    dialect={
        "div_eps": 1e-6, "nonfinite": "multiply", "norm": "naive", "accumulate": "input_dtype",
        "at_equal": "rescaled", "infinite_limit": "multiply", "nan_limit": "nan",
        "negative_limit": "flip_sign",
    },
)  # fmt: skip
def clip_unitwise(
    grads: Tensors, weights: Tensors, *, clipping: float, unit_axis: Any, eps: float
) -> Outputs:
    """``optax.adaptive_grad_clip``, whose axes are those that a norm runs over."""

    def one(grad: Tensor, weight: Tensor) -> Tensor:
        if grad.ndim < 2:
            over = None
        else:
            over = _other_axes(grad, unit_axis)
        return _transformed(optax.adaptive_grad_clip(clipping, eps, over), grad, weight)

    pairs = zip(grads, weights, strict=True)
    return {"grads": [None if g is None else one(g, w) for g, w in pairs]}


@adapter.operation(
    "clip.per_example",
    dialect={
        "norm": "naive", "accumulate": "input_dtype", "nonfinite": "multiply",
        "negative_limit": "flip_sign", "nan_limit": "ignore",
    },
)  # fmt: skip
def clip_per_example(grads: Tensors, *, max_norm: float, reduction: str, scope: str) -> Outputs:
    """``optax.per_example_global_norm_clip``, whose sum a user divides by the number of examples."""
    given = [g for g in grads if g is not None]
    if not given:
        raise Unsupported("optax.per_example_global_norm_clip needs a gradient")
    if reduction == "mean" and not len(given[0]):
        raise Unsupported("optax.per_example_global_norm_clip leaves the mean to its user")
    trees = [given] if scope == "all" else [[g] for g in given]

    def run(trees: Any) -> Any:
        sums = [s for t in trees for s in optax.per_example_global_norm_clip(t, max_norm)[0]]
        norms = [jax.vmap(optax.tree.norm)(tree) for tree in trees]
        if reduction == "mean":
            sums = [s / len(given[0]) for s in sums]
        return sums, [n.astype(jnp.promote_types(n.dtype, jnp.float32)) for n in norms]

    sums, norms = jax.jit(run)(trees)
    clipped, rows = iter(sums), iter(norms)
    return {
        "grads": [None if g is None else next(clipped) for g in grads],
        "norms": norms[0]
        if scope == "all"
        else jnp.stack([jnp.zeros_like(norms[0]) if g is None else next(rows) for g in grads]),
    }


# --- optimisers ---------------------------------------------------------------------------------


def _trajectory(
    make: Callable[[Any], optax.GradientTransformation],
    params: Tensors,
    grads: list[Tensors],
    lr: float | list[float],
) -> Outputs:
    """Step an optimiser through the given gradients; rates that change are a schedule."""
    if any(g is None for step in grads for g in step):
        raise Unsupported(
            "jax.grad gives no absent gradients, and a state of Optax has no place for them"
        )
    if isinstance(lr, list) and len(lr) != len(grads):
        raise Unsupported("a schedule of Optax is a function of the step, of any length")
    optimizer = make(_schedule(lr) if isinstance(lr, list) else lr)

    @jax.jit
    def step(params: Tensors, state: Any, grads: Tensors) -> Any:
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    state, after = optimizer.init(params), []
    for given in grads:
        params, state = step(params, state, given)
        after.append(params)
    return {"params": after}


def _schedule(rates: list[float]) -> Callable[[Any], Any]:
    table = jnp.asarray(rates)
    return lambda count: table[count]


def _coupled(
    weight_decay: float, optimizer: optax.GradientTransformation
) -> optax.GradientTransformation:
    """Add the decay to the gradient, as ``optax.add_decayed_weights`` in front of an optimiser does."""
    if not weight_decay:
        return optimizer
    return optax.chain(optax.add_decayed_weights(weight_decay), optimizer)


@adapter.operation("optim.sgd", WIDE, {"subnormals": "flush"})
def optim_sgd(
    params: Tensors, grads: list[Tensors], *, lr: Any, momentum: float, dampening: float,
    nesterov: bool, weight_decay: float,
) -> Outputs:  # fmt: skip
    """``optax.sgd`` after ``optax.add_decayed_weights``."""
    if dampening:
        raise Unsupported("optax.sgd has no dampening")
    return _trajectory(
        lambda rate: _coupled(weight_decay, optax.sgd(rate, momentum or None, nesterov)),
        params, grads, lr,
    )  # fmt: skip


ADAM = {"subnormals": "flush"}


@adapter.operation("optim.adam", WIDE, ADAM)
def optim_adam(
    params: Tensors, grads: list[Tensors], *, lr: Any, beta1: float, beta2: float, eps: float,
    weight_decay: float, amsgrad: bool,
) -> Outputs:  # fmt: skip
    """``optax.adam`` or ``optax.amsgrad`` after ``optax.add_decayed_weights``."""
    make = optax.amsgrad if amsgrad else optax.adam
    return _trajectory(
        lambda rate: _coupled(weight_decay, make(rate, beta1, beta2, eps)), params, grads, lr
    )


@adapter.operation("optim.adamw", WIDE, ADAM)
def optim_adamw(
    params: Tensors, grads: list[Tensors], *, lr: Any, beta1: float, beta2: float, eps: float,
    weight_decay: float, amsgrad: bool,
) -> Outputs:  # fmt: skip
    """``optax.adamw``."""
    if amsgrad:
        raise Unsupported("optax.adamw has no amsgrad")
    return _trajectory(
        lambda rate: optax.adamw(rate, beta1, beta2, eps, weight_decay=weight_decay),
        params, grads, lr,
    )  # fmt: skip


@adapter.operation(
    "optim.rmsprop",
    WIDE,
    {"momentum_form": "lr_inside", "subnormals": "flush"},
)
def optim_rmsprop(
    params: Tensors, grads: list[Tensors], *, lr: Any, alpha: float, eps: float, momentum: float,
    centered: bool, weight_decay: float,
) -> Outputs:  # fmt: skip
    """``optax.rmsprop`` with ``eps_in_sqrt=False``, which its documentation gives for PyTorch's."""
    options = {"eps_in_sqrt": False, "centered": centered, "momentum": momentum or None}
    return _trajectory(
        lambda rate: _coupled(weight_decay, optax.rmsprop(rate, alpha, eps, **options)),
        params, grads, lr,
    )  # fmt: skip


@adapter.operation("optim.adagrad", WIDE, {"eps_at": "inside_root", "subnormals": "flush"})
def optim_adagrad(
    params: Tensors, grads: list[Tensors], *, lr: Any, lr_decay: float, eps: float,
    initial_accumulator: float, weight_decay: float,
) -> Outputs:  # fmt: skip
    """``optax.adagrad`` after ``optax.add_decayed_weights``."""
    if lr_decay:
        raise Unsupported("optax.adagrad has no lr_decay, but schedules")
    return _trajectory(
        lambda rate: _coupled(weight_decay, optax.adagrad(rate, initial_accumulator, eps)),
        params, grads, lr,
    )  # fmt: skip


# --- regularisation -----------------------------------------------------------------------------


def _penalty(weights: Tensors, penalty: Callable[[Tensors], Tensor], *strengths: float) -> Outputs:
    if not all(0 <= strength < float("inf") for strength in strengths):
        raise Unsupported("a penalty is a user's expression, which checks no strength")
    dtypes = [w.dtype for w in weights if w is not None]
    wide = reduce(jnp.promote_types, dtypes, jnp.dtype(jnp.float32))

    def widened(leaves: Tensors) -> Tensor:
        return jnp.asarray(penalty(jax.tree.map(lambda w: w.astype(wide), leaves)), wide)

    value, grads = jax.jit(jax.value_and_grad(widened))(weights)
    return {"value": value, "grads": grads}


@adapter.operation("penalty.l1", dialect={"sign_of_zero": "plus_one", "subnormals": "flush"})
def penalty_l1(weights: Tensors, *, strength: float) -> Outputs:
    """``jax.grad`` of a multiple of ``optax.tree.norm`` with ``ord=1``."""
    return _penalty(weights, lambda w: strength * optax.tree.norm(w, ord=1), strength)


@adapter.operation("penalty.l2", dialect={"subnormals": "flush"})
def penalty_l2(weights: Tensors, *, strength: float) -> Outputs:
    """``jax.grad`` of a multiple of ``optax.tree.norm`` with ``squared=True``."""
    return _penalty(weights, lambda w: strength * optax.tree.norm(w, squared=True), strength)


@adapter.operation(
    "penalty.elastic_net", dialect={"sign_of_zero": "plus_one", "subnormals": "flush"}
)
def penalty_elastic_net(weights: Tensors, *, l1: float, l2: float) -> Outputs:
    """``jax.grad`` of the sum of both."""

    def penalty(w: Tensors) -> Tensor:
        magnitudes = l1 * optax.tree.norm(w, ord=1) if l1 else 0.0
        squares = l2 * optax.tree.norm(w, squared=True) if l2 else 0.0
        return magnitudes + squares

    return _penalty(weights, penalty, l1, l2)


@adapter.operation("project.l1_ball", WIDE, {"zero_sign": "of_weight", "subnormals": "flush"})
def project_l1_ball(weights: Tensors, *, radius: float) -> Outputs:
    """``optax.projections.projection_l1_ball``, which takes JAX's default dtype alone, so no 16 bits."""

    def one(weight: Tensor) -> Tensor:
        with jax.enable_x64(weight.dtype == jnp.float64):
            return jax.jit(lambda w: projections.projection_l1_ball(w, radius))(weight)

    return {"weights": [None if w is None else one(w) for w in weights]}


@adapter.operation(
    "project.max_norm",
    dialect={
        "norm": "naive", "nonfinite": "multiply", "below_limit": "rescaled",
        "infinite_limit": "multiply", "nan_limit": "all_nan", "subnormals": "flush",
    },
)  # fmt: skip
def project_max_norm(weights: Tensors, *, max_norm: float, axis: int | list[int]) -> Outputs:
    """``optax.projections.projection_l2_ball``, mapped over the axes of the groups by ``jax.vmap``."""

    def one(weight: Tensor) -> Tensor:
        over = _other_axes(weight, axis)

        def project(w: Tensor) -> Tensor:
            return projections.projection_l2_ball(w, max_norm)

        for a in sorted(set(range(weight.ndim)) - set(over)):
            project = jax.vmap(project, a, a)
        return jax.jit(project)(weight)

    return {"weights": [None if w is None else one(w) for w in weights]}


LACKING = {
    "Optax has no pruning": """
        score.magnitude score.gradient score.taylor score.snip score.movement score.fisher score.obd
        score.wanda prune.threshold prune.fraction prune.structured prune.n_m prune.block prune.shrink
        prune.clipped_gradient prune.iterative""",
    "Optax schedules hyper-parameters, without the steps that recompute masks": """
        schedule.constant schedule.polynomial schedule.exponential""",
    "Optax's norms are of the arrays of one program, however those are sharded": "dist.global_norm",
    "Optax has no penalties or proximal steps": """
        penalty.group_lasso prox.l1 prox.l2 prox.elastic_net prox.group_lasso prox.hard_threshold""",
}


for why, operations in LACKING.items():
    adapter.lacks(why, operations)

_optax_layers.register(adapter)
_optax_training.register(adapter)
