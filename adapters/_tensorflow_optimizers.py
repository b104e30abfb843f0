"""``tf.keras.optimizers``, stepped through given gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from adapters._tensorflow_arrays import FLUSH, WIDE, Outputs, Tensors
from adapters.base import Operations, Unsupported

KINDS = {
    "optim.sgd": tf.keras.optimizers.SGD,
    "optim.adam": tf.keras.optimizers.Adam,
    "optim.adamw": tf.keras.optimizers.AdamW,
    "optim.rmsprop": tf.keras.optimizers.RMSprop,
    "optim.adagrad": tf.keras.optimizers.Adagrad,
}
NAMES = {
    "beta1": "beta_1", "beta2": "beta_2", "eps": "epsilon", "alpha": "rho",
    "initial_accumulator": "initial_accumulator_value",
}  # fmt: skip

COMMON = {"hyperparameters": "float32", "in_place": "documented", **FLUSH}
DECAY = {"decay": "decoupled_by_lr"}
ADAM = {"eps_at": "before_bias_correction", "step_count": "optimizer"}
DIALECTS = {
    "optim.sgd": COMMON | DECAY | {"momentum_form": "lr_inside"},
    "optim.adam": COMMON | DECAY | ADAM,
    "optim.adamw": COMMON | ADAM,
    "optim.rmsprop": COMMON | DECAY | {"eps_at": "inside_root", "momentum_form": "lr_inside"},
    "optim.adagrad": COMMON | DECAY | {"eps_at": "inside_root"},
}

operations = Operations()


def make(operation: str, lr: float, options: dict[str, Any]) -> Any:
    """Return a Keras optimiser with the suite's options; one that it lacks is unsupported."""
    options = {NAMES.get(name, name): value for name, value in options.items()}
    if options.pop("dampening", 0):
        raise Unsupported("tf.keras.optimizers.SGD has no dampening")
    if options.pop("lr_decay", 0):
        raise Unsupported("tf.keras.optimizers.Adagrad has no lr_decay")
    return KINDS[operation](lr, **options)


def _trajectory(operation: str) -> Callable[..., Outputs]:
    """Return the steps of an optimiser, built on all the parameters, through the gradients that are there."""

    def run(params: Tensors, grads: list[Tensors], *, lr: Any, **options: Any) -> Outputs:
        rates = lr if isinstance(lr, list) else [lr] * len(grads)
        if operation != "optim.adamw" and not options["weight_decay"]:
            options["weight_decay"] = None  # its default: no decay, rather than one of 0 * w
        if operation == "optim.sgd":
            options["momentum"] = float(options["momentum"])
        stepper = make(operation, rates[0] if rates else 0.0, options)
        variables = [tf.Variable(param) for param in params]
        stepper.build(variables)
        after = []
        for rate, step in zip(rates, grads, strict=True):
            stepper.learning_rate = rate
            pairs = [(g, v) for g, v in zip(step, variables, strict=True) if g is not None]
            stepper.apply([g for g, _ in pairs], [v for _, v in pairs])
            after.append([variable.read_value() for variable in variables])
        return {"params": after}

    return run


for _operation, _dialect in DIALECTS.items():
    operations.operation(_operation, WIDE, _dialect)(_trajectory(_operation))
