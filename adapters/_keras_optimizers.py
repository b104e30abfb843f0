"""Keras's optimisers: steps, and training steps with its own clipping, accumulation and loss scaling."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import keras
from keras import ops

from adapters._keras_backend import BACKEND, FLUSH, compiled, dtype_of, pull_back
from adapters.base import Adapter, Unsupported

Tensor = Any
Tensors = list[Any]
Description = Mapping[str, Any]
Outputs = dict[str, Any]

WIDE = ("float64", "float32")
# In float64 the clipping of Keras differs between the backends, which clip.norm and clip.global_norm show.
NARROW = ("float32",)
KINDS = {
    "optim.sgd": keras.optimizers.SGD, "optim.adam": keras.optimizers.Adam,
    "optim.adamw": keras.optimizers.AdamW, "optim.rmsprop": keras.optimizers.RMSprop,
    "optim.adagrad": keras.optimizers.Adagrad,
}  # fmt: skip
NAMES = {
    "beta1": "beta_1", "beta2": "beta_2", "eps": "epsilon", "alpha": "rho",
    "initial_accumulator": "initial_accumulator_value",
}  # fmt: skip


def step(optimizer: Any, grads: Tensors) -> Tensors:
    """Return what one step makes of variables that are zero."""
    variables = [keras.Variable(ops.zeros_like(g), dtype=dtype_of(g)) for g in grads]
    return Stepper(optimizer, variables)(grads)


class Stepper:
    """An optimiser and its variables; ``stateless_apply``, compiled, on JAX, and ``apply`` elsewhere."""

    def __init__(self, optimizer: Any, variables: list[Any]) -> None:
        """Build the optimiser on the variables."""
        self.optimizer, self.variables = optimizer, variables
        optimizer.build(variables)
        self.run: Any = None

    def __call__(self, grads: Tensors) -> Tensors:
        """Apply gradients, of which some may be absent; return the values after it."""
        if BACKEND != "jax":
            self.optimizer.apply(grads, self.variables)
            return [ops.copy(v.value) for v in self.variables]
        if self.run is None:
            self.run = compiled(self.optimizer.stateless_apply)
        own = [v.value for v in self.optimizer.variables]
        values, own = self.run(own, grads, [v.value for v in self.variables])
        for variable, value in zip(self.variables, values, strict=True):
            variable.assign(value)
        for variable, value in zip(self.optimizer.variables, own, strict=True):
            variable.assign(value)
        return values


def make(operation: str, lr: float, **options: Any) -> Any:
    """Return an optimiser; what it lacks is unsupported, and a decay of 0 is left out."""
    for name in ("dampening", "lr_decay"):
        if options.pop(name, 0):
            raise Unsupported(f"the optimisers of Keras have no {name}")
    if operation != "optim.adamw" and not options.get("weight_decay"):
        options["weight_decay"] = None
    if operation == "optim.sgd":
        options["momentum"] = float(options.get("momentum", 0))
    return KINDS[operation](lr, **{NAMES.get(k, k): v for k, v in options.items()})


def _trajectory(operation: str) -> Callable[..., Outputs]:
    def run(params: Tensors, grads: list[Tensors], *, lr: Any, **options: Any) -> Outputs:
        if len({dtype_of(p) for p in params}) > 1:
            raise Unsupported("an optimiser of Keras is run in one floatx")
        rates = lr if isinstance(lr, list) else [lr] * len(grads)
        variables = [keras.Variable(ops.copy(p), dtype=dtype_of(p)) for p in params]
        stepper = Stepper(make(operation, rates[0] if rates else 0.0, **options), variables)
        after = []
        for rate, given in zip(rates, grads, strict=True):
            stepper.optimizer.learning_rate = rate
            after.append(stepper(given))
        return {"params": after}

    return run


NUMBERS = {"hyperparameters": "float32"} if BACKEND == "tensorflow" else {}
COMMON = {"decay": "decoupled_by_lr", **NUMBERS, **FLUSH}
ADAM = {"eps_at": "before_bias_correction", "step_count": "optimizer"}
DIALECTS = {
    "optim.sgd": COMMON | {"momentum_form": "lr_inside"},
    "optim.adam": COMMON | ADAM,
    "optim.adamw": ADAM | NUMBERS | FLUSH,
    "optim.rmsprop": COMMON | {"eps_at": "inside_root", "momentum_form": "lr_inside"},
    "optim.adagrad": COMMON | {"eps_at": "inside_root"},
}
if BACKEND != "tensorflow":
    ADAM_NUMBERS = {"hyperparameters": "input_dtype"}
    DIALECTS["optim.adam"] |= ADAM_NUMBERS
    DIALECTS["optim.adamw"] |= ADAM_NUMBERS

TRAIN = {
    "clip.negative_limit": "ignore",
    "optimizer.momentum_form": "lr_inside",
    "optimizer.eps_at": "before_bias_correction",
    "optimizer.uncorrected_eps_at": "inside_root",
    "optimizer.decay": "decoupled_by_lr",
    "optimizer.step_count": "optimizer",
    "optimizer.hyperparameters": "float32",
}


REGULARIZERS: dict[str, Callable[..., Any]] = {
    "penalty.l1": lambda strength: keras.regularizers.L1(strength),
    "penalty.l2": lambda strength: keras.regularizers.L2(strength),
    "penalty.elastic_net": keras.regularizers.L1L2,
}


def _clip_options(clip: Description | None) -> dict[str, float]:
    if clip is None:
        return {}
    if clip["operation"] == "clip.value":
        if clip.get("max") is None or clip.get("min") != -clip["max"]:
            raise Unsupported("the clipvalue of Keras is one bound for both signs")
        return {"clipvalue": clip["max"]}
    if clip.get("ord", 2) != 2:
        raise Unsupported("Keras clips by the 2-norm only")
    name = {"clip.norm": "clipnorm", "clip.global_norm": "global_clipnorm"}[clip["operation"]]
    return {name: clip["max_norm"]}


def _norm(grads: Tensors) -> Tensor:
    return ops.sqrt(ops.sum(ops.stack([ops.sum(ops.square(g)) for g in grads if g is not None])))


def train_step(
    params: Tensors,
    grads: list[list[Tensors]],
    masks: Any = None,
    *,
    optimizer: Description,
    clip: Description | None = None,
    penalty: Description | None = None,
    accumulate: str = "mean",
    loss_scale: Any = 1.0,
) -> Outputs:
    """An optimiser of Keras that clips and accumulates by itself, in ``LossScaleOptimizer`` if scaled."""
    counts = {len(micro) for micro in grads}
    if len(counts) != 1 or not max(counts) or (accumulate != "mean" and counts != {1}):
        raise Unsupported(
            "gradient_accumulation_steps of Keras averages one number of micro-batches"
        )
    micro_batches = counts.pop()
    if masks is not None:
        raise Unsupported("Keras has no masks: its constraints reach the weights, not the state")
    if isinstance(loss_scale, list):
        raise Unsupported("the loss scale of keras.optimizers.LossScaleOptimizer is its own")
    if micro_batches > 1 and any(g is None for s in grads for m in s for g in m):
        raise Unsupported("Keras accumulates gradients that are there")
    if loss_scale <= 0:
        raise Unsupported("a loss scale that cannot be is not Keras's to check")
    dtype = dtype_of(params[0])
    options = {k: v for k, v in optimizer.items() if k not in ("operation", "lr")}
    if optimizer["operation"] != "optim.sgd":
        options = {"eps": 1e-8, "weight_decay": 0.0} | options
    if loss_scale == 1 and micro_batches > 1:
        options["gradient_accumulation_steps"] = micro_batches
    elif micro_batches > 1:
        raise Unsupported("LossScaleOptimizer of Keras scales each micro-batch for itself")
    options |= _clip_options(clip)
    inner = make(optimizer["operation"], _at(optimizer["lr"], 0), **options)
    scaled = loss_scale != 1
    outer = keras.optimizers.LossScaleOptimizer(inner, loss_scale) if scaled else inner
    variables = [keras.Variable(ops.copy(p), dtype=dtype) for p in params]
    stepper = Stepper(outer, variables)
    after, norms, skipped = [], [], []
    for number, step_grads in enumerate(grads):
        inner.learning_rate = _at(optimizer["lr"], number)
        extra = _penalty_grads(variables, penalty)
        totals: Tensors = []
        for micro in step_grads:
            given = [g if e is None else (e * loss_scale if g is None else g + e * loss_scale)
                     for g, e in zip(micro, extra, strict=True)]  # fmt: skip
            totals.append(given)
            values = stepper(given)
        mean = [None if g[0] is None else sum(g) / len(g) / loss_scale
                for g in zip(*totals, strict=True)]  # fmt: skip
        norms.append(_norm(mean))
        finite = bool(ops.all(ops.isfinite(norms[-1])))
        if not finite and not scaled:
            raise Unsupported(
                "the optimisers of Keras check for finite gradients when they scale only"
            )
        skipped.append(not finite)
        after.append(values)
    return {
        "params": after,
        "total_norm": ops.stack(norms),
        "skipped": ops.convert_to_tensor(skipped, dtype="int32"),
    }


def _penalty_grads(variables: list[Any], penalty: Description | None) -> Tensors:
    if penalty is None:
        return [None] * len(variables)
    made = REGULARIZERS.get(penalty["operation"])
    if made is None:
        raise Unsupported("Keras has no groups in its penalties")
    regularizer = made(**{k: v for k, v in penalty.items() if k != "operation"})
    weights = [ops.convert_to_tensor(v.value) for v in variables]
    return list(pull_back(lambda leaves: sum(map(regularizer, leaves)), weights)[1])


def _at(value: Any, number: int) -> float:
    return float(value[number] if isinstance(value, list) else value)


def register(adapter: Adapter) -> None:
    """Register the optimisers and the training step."""
    for operation, dialect in DIALECTS.items():
        adapter.operation(operation, WIDE, dialect)(_trajectory(operation))
    adapter.operation("train.step", NARROW, TRAIN)(train_step)
