"""Keras's optimisers, stepped through given gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from adapters._keras_backend import (
    BACKEND,
    FLUSH,
    WIDE,
    Outputs,
    Tensors,
    compiled,
    dtype_of,
)
from adapters.base import Operations, Unsupported

KINDS = {
    "optim.sgd": keras.optimizers.SGD, "optim.adam": keras.optimizers.Adam,
    "optim.adamw": keras.optimizers.AdamW, "optim.rmsprop": keras.optimizers.RMSprop,
    "optim.adagrad": keras.optimizers.Adagrad,
}  # fmt: skip
NAMES = {
    "beta1": "beta_1", "beta2": "beta_2", "eps": "epsilon", "alpha": "rho",
    "initial_accumulator": "initial_accumulator_value",
}  # fmt: skip

operations = Operations()


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


for _operation, _dialect in DIALECTS.items():
    operations.operation(_operation, WIDE, _dialect)(_trajectory(_operation))
