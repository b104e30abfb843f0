"""``layer.rnn``: the simple recurrent layer, forward and through time."""

from __future__ import annotations

from typing import Any

import numpy as np

from conformance.exact import ONE, ctx, each
from conformance.operation import Flag, Mistake, Operation, Param, Value
from conformance.operations import _dtype_cases
from conformance.operations._rnn_cases import cases
from conformance.oracle import recurrent
from conformance.oracle.normalisation import known
from conformance.oracle.recurrent import rnn as oracle

Tensors = dict[str, Any]
PARAMETERS = ("dweight", "drecurrent", "dbias")


def tolerance(inputs: Tensors, settings: Tensors) -> dict[str, int]:
    """Two ULP of the bounds that each number carries."""
    return dict.fromkeys(("y", "dx", "dweight", "drecurrent", "dbias", "dh0"), 2)


def _on(**changes: Any) -> Any:
    """Return a mistake that answers as the oracle does to inputs that it has changed."""

    def mistaken(inputs: Tensors, settings: Tensors) -> Tensors:
        oracle(inputs, settings)
        return oracle(inputs | {name: new(inputs) for name, new in changes.items()}, settings)

    return mistaken


def _how(**changes: Any) -> Any:
    return lambda inputs, settings: oracle(inputs, settings, **changes)


def transposed(inputs: Tensors, settings: Tensors) -> Tensors:
    """h Uᵀ where h U is meant, forward and backward."""
    oracle(inputs, settings)
    result = oracle(inputs | {"recurrent": inputs["recurrent"].T}, settings)
    right = result["drecurrent"]
    return result | {"drecurrent": Value(right.exact.T, right.dtype, right.scale.T)}


def untransposed_backward(inputs: Tensors, settings: Tensors) -> Tensors:
    """The gradient of h0 goes through U, where Uᵀ is meant; the rest is right."""
    return oracle(inputs, settings) | {"dh0": transposed(inputs, settings)["dh0"]}


def one_step(inputs: Tensors, settings: Tensors) -> Tensors:
    """No gradient goes from a step to the one before."""
    return oracle(inputs, settings, cut=lambda t: t > 0)


def whole(inputs: Tensors, settings: Tensors) -> Tensors:
    """truncate is ignored."""
    return oracle(inputs, settings, cut=lambda t: False)


def from_the_end(inputs: Tensors, settings: Tensors) -> Tensors:
    """The stretches are counted from the last step back."""
    stretch, steps = settings["truncate"], inputs["x"].shape[1]
    return oracle(
        inputs, settings, cut=lambda t: bool(stretch) and t > 0 and (steps - t) % stretch == 0
    )


def one_more(inputs: Tensors, settings: Tensors) -> Tensors:
    """Stretches are one step longer than asked for."""
    oracle(inputs, settings)
    stretch = settings["truncate"]
    return oracle(inputs, settings | {"truncate": None if stretch is None else stretch + 1})


def state_lost(inputs: Tensors, settings: Tensors) -> Tensors:
    """The state is set to 0 at every cut, in the forward pass too."""
    right, stretch = oracle(inputs, settings), settings["truncate"]
    if stretch is None or stretch >= inputs["x"].shape[1]:
        return right
    rest = {name: inputs[name][:, stretch:] for name in ("x", "dy")}
    rest |= {"h0": np.zeros_like(inputs["h0"])}
    later = oracle(inputs | rest, settings)["y"].exact
    y = np.concatenate([right["y"].exact[:, :stretch], later], axis=1)
    return right | {"y": Value(y, right["y"].dtype)}


def averaged(inputs: Tensors, settings: Tensors) -> Tensors:
    """The gradients of the parameters are means over the batch."""
    examples = max(len(inputs["x"]), 1)
    return recurrent.mapped(oracle(inputs, settings), lambda v: v / examples, *PARAMETERS)


def averaged_over_time(inputs: Tensors, settings: Tensors) -> Tensors:
    """The gradients of the parameters are means over the steps."""
    steps = max(inputs["x"].shape[1], 1)
    return recurrent.mapped(oracle(inputs, settings), lambda v: v / steps, *PARAMETERS)


def _no_start(inputs: Tensors, settings: Tensors) -> Tensors:
    return recurrent.mapped(oracle(inputs, settings), lambda v: 0 * v, "dh0")


def _at_the_state(h: Any) -> Any:
    y = each(ctx.tanh, h.exact)
    return recurrent.Tracked(ONE - y * y, 0 * h.exact)


def _last(inputs: Tensors) -> Any:
    dy = np.zeros_like(inputs["dy"])
    dy[:, -1] = inputs["dy"][:, -1]
    return dy


MISTAKES = (
    Mistake("no time", "no gradient goes from a step to the one before", one_step, ("d2l-ai/d2l-en#2616",)),
    Mistake("truncate ignored", "gradients go back over every cut", whole, ("FluxML/Flux.jl#636",)),
    Mistake("cut from the end", "the stretches are counted from the last step", from_the_end),
    Mistake("cut one step late", "stretches are one step too long", one_more),
    Mistake("state lost at a cut", "the state is set to 0 where only its gradient is to stop", state_lost,
            ("tensorflow/tensorflow#107",)),
    Mistake("initial state ignored", "h0 is taken to be 0", _on(h0=lambda i: np.zeros_like(i["h0"]))),
    Mistake("gradient of h0 lost", "dh0 is 0", _no_start),
    Mistake("bias ignored", "b is taken to be 0",
            _on(bias=lambda i: None if i["bias"] is None else np.zeros_like(i["bias"]))),
    Mistake("recurrent weight transposed", "h Uᵀ", transposed),
    Mistake("backward not transposed", "dh = da U", untransposed_backward),
    Mistake("state of the wrong step", "dU = Σ h_tᵀ da_t, where h_(t-1) is meant", _how(shifted=True)),
    Mistake("derivative at the state", "1 - tanh(h)², where 1 - h² is meant", _how(derivative=_at_the_state)),
    Mistake("derivative left out", "da = dh",
            _how(derivative=lambda h: known(ONE, h.exact.shape))),
    Mistake("rectified", "h = max(a, 0) for tanh(a)", _how(activate=recurrent.rectified)),
    Mistake("last step only", "dy of the other steps is ignored", _on(dy=_last)),
    Mistake("upstream gradient ignored", "backward starts from ones", _on(dy=lambda i: np.ones_like(i["dy"]))),
    Mistake("gradients averaged", "dW, dU and db are means over the batch", averaged),
    Mistake("gradients averaged over time", "dW, dU and db are means over the steps", averaged_over_time),
    Mistake("time reversed", "the sequence is read from its end",
            _on(x=lambda i: i["x"][:, ::-1], dy=lambda i: i["dy"][:, ::-1])),
)  # fmt: skip

CONSTRAINTS = {
    "C1": "h_t = tanh(x_t W + h_(t-1) U + b) for x (N, T, in), W (in, H), U (H, H), b (H,), from h_0 on; y is"
    " every state after the first, (N, T, H).",
    "C2": "da_t = (dy_t + da_(t+1) Uᵀ)·(1 - h_t²), from the last step back: each state serves the output and"
    " the next state.",
    "C3": "dx_t = da_t Wᵀ, dW = Σ x_tᵀ da_t, dU = Σ h_(t-1)ᵀ da_t, db = Σ da_t, dh0 = da_1 Uᵀ: sums over the"
    " batch and over time.",
    "C4": "truncate = k stops the gradient at every k-th step: the state that enters steps k+1, 2k+1, … is a"
    " constant, whose value still counts in dU. The forward pass is unchanged.",
    "C5": "truncate of T or more steps changes nothing; null is none; less than 1 is refused.",
    "C6": "Gradients grow and shrink with the powers of U, and are neither clipped nor lost.",
    "C7": "Without a bias nothing is added, and there is no gradient of one.",
    "C8": "A batch without examples gives an empty y, dx and dh0 and zeros for the parameters. A sequence has"
    " at least one step.",
    "C9": "An infinity or a NaN in one example never reaches another's y, dx or dh0.",
    "C10": "Shapes that do not fit are refused; nothing is broadcast but the bias.",
    "C11": _dtype_cases.CONSTRAINT,
}

FLAGS = {
    "basic": Flag("BASIC", "Different extents along every axis, uneven upstream gradient at every step."),
    "one-step": Flag("EDGE_CASE", "A single step: a dense layer with tanh and a state."),
    "one-wide": Flag("EDGE_CASE", "An extent of 1, where a transposed or squeezed array would fit."),
    "square": Flag("EDGE_CASE", "in = H, or T = N: transposed arrays would fit."),
    "through-time": Flag("KNOWN_BUG", "dy at the last step alone, or a U that matters more than x.",
                         ("d2l-ai/d2l-en#2616",)),
    "truncate": Flag("KNOWN_BUG", "Where the gradient stops, and that the state does not.",
                     ("FluxML/Flux.jl#636", "tensorflow/tensorflow#107", "OpenNMT/OpenNMT-py#1148")),
    "exploding": Flag("OVERFLOW", "U with eigenvalues above 1: gradients of 1e9 and more."),
    "vanishing": Flag("PRECISION", "U with eigenvalues below 1: gradients of 1e-9 and less."),
    "saturated": Flag("EDGE_CASE", "States at ±1, through which no gradient passes."),
    "no-bias": Flag("EDGE_CASE", "The layer has no bias."),
    "uneven-upstream": Flag("EDGE_CASE", "dy differs by orders of magnitude and is zero in places."),
    "empty": Flag("EDGE_CASE", "No example, or no step."),
    "nonfinite": Flag("EDGE_CASE", "An infinite or NaN element."),
    "bad-shape": Flag("EDGE_CASE", "Shapes that do not fit each other."),
    "bad-dtype": _dtype_cases.FLAG,
}  # fmt: skip


OPERATION = Operation(
    id="layer.rnn",
    summary="The simple recurrent layer with tanh, with its gradients through time.",
    formula="h_t = tanh(x_t W + h_(t-1) U + b);  da_t = (dy_t + da_(t+1) Uᵀ)·(1 - h_t²)",
    sources=(
        "J. L. Elman: Finding structure in time. Cognitive Science 14, 1990",
        "P. J. Werbos: Backpropagation through time: what it does and how to do it. Proc. IEEE 78, 1990",
        "R. J. Williams, J. Peng: An efficient gradient-based algorithm for on-line training of recurrent"
        " network trajectories. Neural Computation 2, 1990 (truncation)",
        "R. Pascanu, T. Mikolov, Y. Bengio: On the difficulty of training recurrent neural networks. ICML 2013",
    ),
    constraints=CONSTRAINTS,
    inputs={
        "x": "(N, T, in), T at least 1",
        "weight": "(in, H): W",
        "recurrent": "(H, H): U",
        "bias": "(H,): b, or null",
        "h0": "(N, H): the state before the first step",
        "dy": "(N, T, H): the upstream gradient of every state, dL/dy",
    },
    outputs={
        "y": "(N, T, H): every state",
        "dx": "like x",
        "dweight": "like weight",
        "drecurrent": "like recurrent",
        "dbias": "like bias; null without one",
        "dh0": "like h0",
    },
    params=(
        Param("truncate", "steps after which the gradient stops, at least 1, or null for never"),
    ),
    oracle=oracle,
    tolerance=tolerance,
    tolerance_why=(
        "Each number carries a first-order bound on its rounding error in roundoffs u, as in optim.sgd; a"
        " product of matrices over K terms passes on the errors of both and adds K·Σ|terms|, in any order;"
        " tanh passes on its argument's error times 1 - h² and adds 4|h|. So the bound grows from step to"
        " step as the gradient may, with the powers of |U|. Gradients of parameters are sums of N·T terms."
        " 2 ULP of the bound, because another order at most doubles the number of operations."
    ),
    flags=FLAGS,
    cases=cases,
    mistakes=MISTAKES,
    dialects={"torch": {}, "tensorflow": {"subnormals": "flush"}},
)  # fmt: skip
