"""PaddlePaddle: ``paddle.nn.utils``, ``paddle.optimizer`` and ``paddle.nn.functional``, on the CPU."""

from __future__ import annotations

import re
from functools import wraps
from typing import Any

import numpy as np
import paddle
from paddle.nn import utils

from adapters import _paddle_layers
from adapters.base import Adapter, Function, Rejected, Unsupported, interval

Tensor = Any
Tensors = list[Any]
Outputs = dict[str, Any]

WIDE = ("float64", "float32")  # its CPU kernels lack norms and layers in 16 bits

adapter = Adapter(
    "paddle",
    version=paddle.__version__,
    homepage="https://www.paddlepaddle.org.cn/en",
    to_native=paddle.to_tensor,
    to_numpy=lambda tensor: np.asarray(tensor.numpy()),
    rejections=(IndexError,),  # a label or an axis that is out of range
)


def _with_grads(grads: Tensors) -> list[Any]:
    """Return leaves that have these gradients."""
    leaves = []
    for grad in grads:
        leaf = paddle.zeros(
            [] if grad is None else grad.shape, "float32" if grad is None else grad.dtype
        )
        leaf.stop_gradient = False
        if grad is not None:
            leaf.grad = grad.clone()
        leaves.append(leaf)
    return leaves


CLIP_NORM = {
    "eps_at": "denominator", "eps": 1e-6, "nonfinite": "multiply", "norm": "naive",
    "infinite_limit": "multiply", "negative_limit": "flip_sign", "nan_limit": "nan",
}  # fmt: skip


@adapter.operation("clip.global_norm", WIDE, CLIP_NORM | {"duplicates": "twice"})
def clip_global_norm(grads: Tensors, *, max_norm: float, ord: float) -> Outputs:
    """``paddle.nn.utils.clip_grad_norm_``."""
    if any(g is other for i, g in enumerate(grads) if g is not None for other in grads[:i]):
        raise Unsupported("a gradient of PaddlePaddle belongs to one parameter")
    if ord > 0 and ord not in (1, 2, float("inf")):
        raise Unsupported("paddle.nn.utils.clip_grad_norm_ knows the norms 0, 1, 2 and inf")
    leaves = _with_grads(grads)
    total = utils.clip_grad_norm_(leaves, max_norm, ord)
    return {"grads": [leaf.grad for leaf in leaves], "total_norm": total}


@adapter.operation(
    "clip.norm",
    ("float32",),  # the CPU has no kernel of it for float64
    {
        "nonfinite": "multiply", "norm": "naive", "infinite_limit": "nan", "below_limit": "unchanged",
    },
)  # fmt: skip
def clip_norm(grads: Tensors, *, max_norm: float, ord: float) -> Outputs:
    """``paddle.nn.ClipGradByNorm``, which returns no norm: the norms are those of ``paddle.linalg.norm``."""
    if ord != 2:
        raise Unsupported("paddle.nn.ClipGradByNorm knows the 2-norm only")
    clip = paddle.nn.ClipGradByNorm(max_norm)
    pairs = [(leaf, leaf.grad) for leaf in _with_grads(grads)]
    clipped = [None if g is None else clip([(leaf, g)])[0][1] for leaf, g in pairs]
    norms = [None if g is None else paddle.linalg.norm(g) for g in grads]
    return {"grads": clipped, "norms": norms}


@adapter.operation("clip.value", WIDE, {"nan_limit": "reject"})
def clip_value(
    grads: Tensors,
    *,
    min: float | None = None,
    max: float | None = None,
    range: float | None = None,
) -> Outputs:
    """``paddle.nn.utils.clip_grad_value_``, whose interval is symmetric; ``paddle.clip`` for others."""
    min, max = interval(min, max, range, "PaddlePaddle has no width beside the bounds")
    if min is None and max is None:
        raise Unsupported("paddle.clip without a bound returns its input")
    if max is not None and min == -max:
        leaves = _with_grads(grads)
        utils.clip_grad_value_(leaves, max)
        return {"grads": [leaf.grad for leaf in leaves]}
    return {"grads": [None if g is None else paddle.clip(g, min, max) for g in grads]}


# --- optimisers: momentum, rho, eps and decay are float32 for parameters of float64 too -----------

NARROW = ("float32",)


def _trajectory(
    kind: Any, params: Tensors, grads: list[Tensors], lr: Any, **options: Any
) -> Outputs:
    """Step an optimiser through the given gradients, which stand where a backward pass puts them."""
    rates = lr if isinstance(lr, list) else [lr] * len(grads)
    leaves = []
    for param in params:
        holder = paddle.nn.Layer()
        leaf = holder.create_parameter(param.shape, dtype=param.dtype)
        leaf.set_value(param)
        leaves.append(leaf)
    stepper = kind(rates[0] if rates else 0.0, parameters=leaves, **options)
    after = []
    for rate, step in zip(rates, grads, strict=True):
        if len(step) != len(leaves):
            raise Unsupported("a gradient of PaddlePaddle belongs to its parameter")
        stepper.set_lr(rate)
        for leaf, grad in zip(leaves, step, strict=True):
            leaf.clear_gradient(False)
            if grad is not None:
                leaf.grad = grad.clone()
        stepper.step()
        after.append([leaf.clone().detach() for leaf in leaves])
    return {"params": after}


@adapter.operation("optim.sgd", NARROW)
def optim_sgd(
    params: Tensors, grads: list[Tensors], *, lr: Any, momentum: float, dampening: float,
    nesterov: bool, weight_decay: float,
) -> Outputs:  # fmt: skip
    """``paddle.optimizer.SGD``, or ``Momentum``."""
    if dampening:
        raise Unsupported("paddle.optimizer.Momentum has no dampening")
    decay = {"weight_decay": weight_decay} if weight_decay else {}
    if not momentum and not nesterov:
        return _trajectory(paddle.optimizer.SGD, params, grads, lr, **decay)
    own = {"momentum": momentum, "use_nesterov": nesterov} | decay
    return _trajectory(paddle.optimizer.Momentum, params, grads, lr, **own)


def _adam(
    kind: Any, params: Tensors, grads: list[Tensors], *, lr: Any, eps: float, weight_decay: float,
    **options: Any,
) -> Outputs:  # fmt: skip
    decay = {"weight_decay": weight_decay} if weight_decay or kind is paddle.optimizer.AdamW else {}
    return _trajectory(kind, params, grads, lr, epsilon=eps, **decay, **options)


@adapter.operation("optim.adam", NARROW)
def optim_adam(params: Tensors, grads: list[Tensors], **options: Any) -> Outputs:
    """``paddle.optimizer.Adam``."""
    return _adam(paddle.optimizer.Adam, params, grads, **options)


@adapter.operation("optim.adamw", NARROW)
def optim_adamw(params: Tensors, grads: list[Tensors], **options: Any) -> Outputs:
    """``paddle.optimizer.AdamW``."""
    return _adam(paddle.optimizer.AdamW, params, grads, **options)


@adapter.operation("optim.rmsprop", NARROW, {"eps_at": "inside_root", "momentum_form": "lr_inside"})
def optim_rmsprop(
    params: Tensors, grads: list[Tensors], *, lr: Any, alpha: float, eps: float,
    weight_decay: float, **options: Any,
) -> Outputs:  # fmt: skip
    """``paddle.optimizer.RMSProp``."""
    decay = {"weight_decay": weight_decay} if weight_decay else {}
    kind = paddle.optimizer.RMSProp
    return _trajectory(kind, params, grads, lr, rho=alpha, epsilon=eps, **decay, **options)


@adapter.operation("optim.adagrad", NARROW)
def optim_adagrad(
    params: Tensors, grads: list[Tensors], *, lr: Any, lr_decay: float, eps: float,
    initial_accumulator: float, weight_decay: float,
) -> Outputs:  # fmt: skip
    """``paddle.optimizer.Adagrad``."""
    if lr_decay:
        raise Unsupported("paddle.optimizer.Adagrad has no lr_decay")
    decay = {"weight_decay": weight_decay} if weight_decay else {}
    start = {"initial_accumulator_value": initial_accumulator}
    return _trajectory(paddle.optimizer.Adagrad, params, grads, lr, epsilon=eps, **start, **decay)


@adapter.operation("prox.l1", ("float32",))  # its threshold is float32
def prox_l1(weights: Tensors, *, strength: float, step: float) -> Outputs:
    """``paddle.nn.functional.softshrink``."""
    shrink = paddle.nn.functional.softshrink
    return {"weights": [None if w is None else shrink(w, strength * step) for w in weights]}


LACKING = {
    "PaddlePaddle prunes in another package, PaddleSlim": """
        score.magnitude score.gradient score.taylor score.snip score.movement score.fisher score.obd
        score.wanda prune.threshold prune.fraction prune.structured prune.n_m prune.block prune.shrink
        prune.clipped_gradient prune.iterative""",
    "PaddlePaddle schedules learning rates only": """
        schedule.constant schedule.polynomial schedule.exponential""",
    "PaddlePaddle has no clip by the norms of units or of examples": "clip.unitwise clip.per_example",
    "PaddlePaddle's sharded norms need a process group; this suite runs one process": """
        dist.global_norm""",
    "the regularisers of PaddlePaddle are applied inside its optimisers and return nothing": """
        penalty.l1 penalty.l2 penalty.elastic_net penalty.group_lasso""",
    "PaddlePaddle has no such operator": """
        prox.l2 prox.elastic_net prox.group_lasso prox.hard_threshold project.l1_ball
        project.max_norm""",
    "paddle.nn.functional.dropout draws its own mask and takes none": "layer.dropout",
}


for why, operations in LACKING.items():
    adapter.lacks(why, operations, WIDE)

_paddle_layers.register(adapter)

NO_SUCH_DTYPE = re.compile(
    r"is not registered|not implemented for data type|when dtype is not|InvalidType"
)


def _refusing(function: Function) -> Function:
    """Take an error that speaks of a dtype as a refusal; its type is another in every kernel."""

    @wraps(function)
    def run(**arguments: Any) -> Any:
        try:
            return function(**arguments)
        except (RuntimeError, TypeError, OSError) as error:
            if NO_SUCH_DTYPE.search(str(error)):
                raise Rejected(str(error).strip().partition("\n")[0]) from error
            raise

    return run


for name, registered in adapter.functions.items():
    adapter.functions[name] = _refusing(registered)
