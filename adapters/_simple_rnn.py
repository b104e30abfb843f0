"""The recurrent layer of Keras, which TensorFlow has as its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from adapters._backward import Outputs, Run, Tensor, in_stretches
from adapters.base import Unsupported


def simple_rnn(
    layer_class: Any,
    run: Run,
    dtype_of: Callable[[Tensor], str],
    concatenate: Callable[..., Tensor],
    stop_gradient: Callable[[Tensor], Tensor],
) -> Run:
    """Return ``SimpleRNN``, called stretch by stretch with a state that lets no gradient through."""

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
        if truncate is not None and truncate < 1:
            raise Unsupported("Keras has no truncation of its own that could be less than a step")
        layer = layer_class(
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

            return concatenate(in_stretches(states, x, h0, truncate, stop_gradient), axis=1)

        return run(forward, dy, x=x, weight=weight, recurrent=recurrent, bias=bias, h0=h0)

    return rnn
