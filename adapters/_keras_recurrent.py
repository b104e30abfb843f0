"""Keras's recurrent layer."""

from __future__ import annotations

import keras
from keras import ops

from adapters._backward import in_stretches
from adapters._keras_backend import DTYPES, FLUSH, Outputs, Tensor, dtype_of, run
from adapters.base import Operations, Unsupported

operations = Operations()


@operations.operation("layer.rnn", DTYPES, FLUSH)
def rnn(
    x: Tensor,
    weight: Tensor,
    recurrent: Tensor,
    h0: Tensor,
    dy: Tensor,
    bias: Tensor | None = None,
    *,
    truncate: int | None = None,
) -> Outputs:
    """``keras.layers.SimpleRNN``, called stretch by stretch with a state that lets no gradient through."""
    if truncate is not None and truncate < 1:
        raise Unsupported("Keras has no truncation of its own that could be less than a step")
    layer = keras.layers.SimpleRNN(
        weight.shape[1],
        return_sequences=True,
        use_bias=bias is not None,
        recurrent_initializer="zeros",  # the default takes a QR, which 16 bits have not
        dtype=dtype_of(x),
    )
    layer.build(x.shape)
    seeds = [variable.value for variable in layer.non_trainable_variables]

    def forward(
        x: Tensor, weight: Tensor, recurrent: Tensor, h0: Tensor, bias: Tensor | None = None
    ) -> Tensor:
        variables = [weight, recurrent] + ([] if bias is None else [bias])

        def states(steps: Tensor, state: Tensor) -> Tensor:
            return layer.stateless_call(variables, seeds, steps, initial_state=state)[0]

        return ops.concatenate(in_stretches(states, x, h0, truncate, ops.stop_gradient), axis=1)

    return run(forward, dy, x=x, weight=weight, recurrent=recurrent, bias=bias, h0=h0)
