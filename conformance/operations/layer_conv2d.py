"""``layer.conv2d``: the two-dimensional convolution layer, forward and backward."""

from __future__ import annotations

from typing import Any

import numpy as np

from conformance.cases import ALL, WIDE, Cases, Stream, tensor
from conformance.exact import Reject
from conformance.operation import Flag, Mistake, Operation, Param, Value
from conformance.operations import _dtype_cases
from conformance.oracle import layers, windows

Tensors = dict[str, Any]


def _place(inputs: Tensors, settings: Tensors) -> tuple[windows.Axis, windows.Axis]:
    shape, kernel = inputs["x"].shape, list(inputs["weight"].shape[:2])
    return windows.place(shape, kernel, settings | {"ceil_mode": False})


def oracle(inputs: Tensors, settings: Tensors) -> Tensors:
    """y[n,i,j,o] = b[o] + Σ_{a,b,c} x[n, i·s + a·d - top, j·s + b·d - left, c] w[a,b,c,o]."""
    x, weight, groups = inputs["x"], inputs["weight"], settings["groups"]
    layers.check_dtypes(x=x, weight=weight, bias=inputs["bias"], dy=inputs["dy"])
    layers.check_shape("x", x, ("N", "H", "W", "I"))
    layers.check_shape("weight", weight, ("kh", "kw", "I/groups", "O"))
    if type(groups) is not int or groups < 1 or weight.shape[3] % groups:
        raise Reject(f"groups must divide the {weight.shape[3]} output channels, got {groups}")
    layers.check_shape("x", x, ("N", "H", "W", weight.shape[2] * groups))
    layers.check_shape("bias", inputs["bias"], (weight.shape[3],))
    place = _place(inputs, settings)
    return layers.linear(layers.conv2d_forward, layers.conv2d_backward, inputs, *place, groups)


def tolerance(inputs: Tensors, settings: Tensors) -> dict[str, int]:
    """ULP of the sum of absolute terms, per output."""
    kh, kw, into, out = inputs["weight"].shape
    rows, columns = _place(inputs, settings)
    places = max(len(inputs["x"]), 1) * len(rows.windows) * len(columns.windows)
    return {
        "y": kh * kw * into + 1,
        "dx": kh * kw * (out // settings["groups"]),
        "dweight": places,
        "dbias": places,
    }


def flipped_kernel(inputs: Tensors, settings: Tensors) -> Tensors:
    """The kernel is turned around, as in the convolution of signal processing."""
    result = oracle(inputs | {"weight": inputs["weight"][::-1, ::-1]}, settings)
    dweight = result["dweight"]
    turned = Value(dweight.exact[::-1, ::-1], dweight.dtype, dweight.scale[::-1, ::-1])
    return result | {"dweight": turned}


def unflipped_backward(inputs: Tensors, settings: Tensors) -> Tensors:
    """dx meets the kernel turned the wrong way round."""
    return oracle(inputs, settings) | {"dx": flipped_kernel(inputs, settings)["dx"]}


def transposed_kernel(inputs: Tensors, settings: Tensors) -> Tensors:
    """A square kernel is taken as (kw, kh)."""
    if inputs["weight"].shape[0] != inputs["weight"].shape[1]:
        return oracle(inputs, settings)
    result = oracle(inputs | {"weight": inputs["weight"].swapaxes(0, 1)}, settings)
    dweight = result["dweight"]
    swapped = Value(dweight.exact.swapaxes(0, 1), dweight.dtype, dweight.scale.swapaxes(0, 1))
    return result | {"dweight": swapped}


def interleaved_groups(inputs: Tensors, settings: Tensors) -> Tensors:
    """Output channel o belongs to group o mod groups, not to group o div (O/groups)."""
    weight, groups = inputs["weight"], settings["groups"]
    order = [o for g in range(groups) for o in range(g, weight.shape[3], groups)]
    back = [order.index(o) for o in range(len(order))]
    bias = inputs["bias"]
    picked = {
        "weight": weight[..., order],
        "bias": None if bias is None else bias[order],
        "dy": inputs["dy"][..., order],
    }
    result = oracle(inputs | picked, settings)
    for name in ("y", "dweight", "dbias"):
        if result[name] is not None:
            value = result[name]
            result[name] = Value(value.exact[..., back], value.dtype, value.scale[..., back])
    return result


def _with_settings(change: Any) -> Any:
    def mistaken(inputs: Tensors, settings: Tensors) -> Tensors:
        _place(inputs, settings)
        changed = settings | change(settings)
        (n, *_, out), (rows, columns) = inputs["dy"].shape, _place(inputs, changed)
        # Where the mistake changes the shape of y, its dy is as good as any.
        dy = np.resize(inputs["dy"], (n, len(rows.windows), len(columns.windows), out))
        return oracle(inputs | {"dy": dy}, changed)

    return mistaken


def ones_for_dy(inputs: Tensors, settings: Tensors) -> Tensors:
    """Backward starts from ones."""
    return oracle(inputs | {"dy": np.ones_like(inputs["dy"])}, settings)


def averaged_bias(inputs: Tensors, settings: Tensors) -> Tensors:
    """db is the mean over examples and places."""
    result = oracle(inputs, settings)
    if result["dbias"] is not None:
        places = max(inputs["dy"].size // inputs["dy"].shape[3], 1)
        result["dbias"] = Value(result["dbias"].exact / places, result["dbias"].dtype)
    return result


def bias_not_added(inputs: Tensors, settings: Tensors) -> Tensors:
    """The bias is left out."""
    return oracle(inputs, settings) | {"y": oracle(inputs | {"bias": None}, settings)["y"]}


MISTAKES = (
    Mistake("kernel flipped", "convolution instead of cross-correlation", flipped_kernel),
    Mistake("backward not flipped", "dx meets the kernel the wrong way round", unflipped_backward),
    Mistake("kernel transposed", "a square kernel is taken as (kw, kh)", transposed_kernel),
    Mistake(
        "stride swapped", "the strides of rows and columns change places",
        _with_settings(lambda s: {"stride": s["stride"][::-1]}),
    ),
    Mistake(
        "dilation ignored", "taps always lie side by side",
        _with_settings(lambda s: {"dilation": [1, 1]}),
    ),
    Mistake(
        "dilation swapped", "the dilations of rows and columns change places",
        _with_settings(lambda s: {"dilation": s["dilation"][::-1]}),
    ),
    Mistake(
        "padding on the other side", "top and bottom, left and right change places",
        _with_settings(lambda s: {"padding": [side[::-1] for side in s["padding"]]}),
    ),
    Mistake(
        "padding swapped", "the paddings of rows and columns change places",
        _with_settings(lambda s: {"padding": s["padding"][::-1]}),
    ),
    Mistake("groups interleaved", "output channel o belongs to group o mod groups", interleaved_groups),
    Mistake("upstream gradient ignored", "backward starts from ones instead of dy", ones_for_dy),
    Mistake("bias gradient averaged", "db is a mean over examples and places", averaged_bias),
    Mistake("bias not added", "y lacks the bias", bias_not_added),
)  # fmt: skip

CONSTRAINTS = {
    "C1": "y is the cross-correlation of x with the kernel, which is not flipped, plus the bias.",
    "C2": "dx, dW and db are the derivatives: sums over every place and example, never means.",
    "C3": "stride and dilation are [rows, columns]; a window starts every `stride` pixels, and its taps"
    " lie `dilation` pixels apart. A remainder in which no whole window fits is dropped.",
    "C4": "padding [[top, bottom], [left, right]] adds zeros, each side by itself; a window may lie wholly"
    " in it and gives the bias.",
    "C5": "With groups, output channels [g·O/groups, (g+1)·O/groups) see input block g only.",
    "C6": "Without a bias nothing is added, and there is no gradient of one.",
    "C7": "NaN and infinities reach only the outputs whose window, example and group hold them.",
    "C8": "A batch without examples gives an empty y and dx, and zeros for dW and db.",
    "C9": "Refused: a kernel that spans more than the padded image, a stride, dilation or groups below 1,"
    " channels that do not fit the groups.",
    "C10": "Every output has the dtype of x; the order of the sums is free.",
    "C11": _dtype_cases.CONSTRAINT,
}

FLAGS = {
    "basic": Flag("BASIC", "No padding, stride 1; different extents along every axis."),
    "impulse": Flag("BASIC", "One pixel is lit: y shows which way round the kernel lies."),
    "stride": Flag("BASIC", "Windows more than one pixel apart."),
    "padding": Flag("BASIC", "Zeros around the image."),
    "asymmetric": Flag("EDGE_CASE", "Each of the four sides is padded differently."),
    "dilation": Flag("BASIC", "Taps more than one pixel apart."),
    "groups": Flag("BASIC", "Several groups, depthwise included."),
    "square": Flag("EDGE_CASE", "Square kernels, strides that differ: an axis taken for the other fits."),
    "small": Flag("EDGE_CASE", "One example, one pixel, one channel or one window."),
    "no-bias": Flag("EDGE_CASE", "The layer has no bias."),
    "empty-batch": Flag("EDGE_CASE", "No example."),
    "uneven-upstream": Flag("EDGE_CASE", "dy is mostly zero, or spans orders of magnitude."),
    "cancellation": Flag("PRECISION", "Large terms cancel, or magnitudes span 1e-3 to 1e3."),
    "nonfinite": Flag("EDGE_CASE", "A NaN or infinite pixel, which must not leak."),
    "divided": Flag("EDGE_CASE", "So many examples that an implementation may divide them."),
    "bad-geometry": Flag("EDGE_CASE", "Shapes or parameters that do not fit."),
    "bad-dtype": _dtype_cases.FLAG,
}  # fmt: skip


def cases(c: Cases) -> None:
    """Write the cases."""
    random = Stream(102)

    def add(
        name: str,
        flags: str,
        labels: str,
        image: tuple[int, ...],
        kernel: tuple[int, ...],
        dtypes: Any = WIDE,
        **given: Any,
    ) -> None:
        params: Tensors = {
            k: given.pop(k) for k in ("stride", "padding", "dilation", "groups") if k in given
        }
        inputs: Tensors = {
            "x": random.uniform(*image, low=-2.0, high=2.0),
            "weight": random.uniform(*kernel),
            "bias": random.uniform(kernel[3]),
        } | given
        if "dy" not in inputs:
            settings = {p.name: p.default for p in PARAMS} | params
            try:
                rows, columns = _place(inputs, settings)
                places = len(rows.windows), len(columns.windows)
            except Reject:
                places = 1, 1
            inputs["dy"] = random.uniform(image[0], *places, kernel[3], low=-3.0, high=3.0)
        c.add(name, flags, labels, inputs, params, dtypes)

    add("basic", "basic", "C1 C2 C10", (2, 4, 5, 2), (3, 2, 2, 3), ALL)
    add("one-channel", "basic", "C1 C2", (2, 5, 4, 1), (2, 3, 1, 1))
    add("pointwise", "basic", "C1 C2", (2, 2, 3, 3), (1, 1, 3, 2), ALL)
    impulse = np.zeros((1, 4, 5, 1))
    impulse[0, 1, 2, 0] = 1.0
    counted = tensor([1, 2, 3], [4, 5, 6]).reshape(2, 3, 1, 1)
    add("impulse", "impulse", "C1 C2", (1, 4, 5, 1), (2, 3, 1, 1), x=impulse, weight=counted)
    line = tensor(0, 0, 1, 0, 0).reshape(1, 1, 5, 1)
    add(
        "impulse-on-a-line", "impulse padding", "C1 C4", (1, 1, 5, 1), (1, 3, 1, 1),
        x=line, weight=tensor(1, 2, 3).reshape(1, 3, 1, 1), padding=[[0, 0], [1, 1]],
    )  # fmt: skip
    upstream = np.zeros((1, 3, 3, 2))
    upstream[0, 2, 1, 1] = -2.0
    add(
        "one-upstream", "impulse uneven-upstream", "C2", (1, 4, 5, 2), (2, 3, 2, 2), dy=upstream
    )  # fmt: skip
    add("stride-rows", "stride", "C3", (2, 6, 4, 1), (2, 2, 1, 2), stride=[2, 1])
    add("stride-columns", "stride square", "C3", (1, 5, 7, 2), (2, 2, 2, 2), stride=[1, 3])
    add("stride-both", "stride square", "C3", (1, 7, 8, 1), (3, 3, 1, 2), stride=[2, 3])
    add("stride-beyond-kernel", "stride", "C3", (1, 6, 7, 1), (1, 2, 1, 2), stride=[3, 4])
    add("remainder-dropped", "stride", "C3", (2, 4, 6, 1), (3, 3, 1, 1), stride=[2, 2])
    same = [[1, 1], [1, 1]]
    add("padding-same", "padding square", "C4", (2, 3, 4, 2), (3, 3, 2, 2), padding=same)
    add("padding-rows", "padding", "C4", (1, 3, 4, 2), (3, 2, 2, 2), padding=[[2, 2], [0, 0]])
    add(
        "asymmetric", "padding asymmetric", "C4", (1, 3, 4, 2), (2, 3, 2, 2),
        padding=[[1, 0], [0, 2]],
    )  # fmt: skip
    add(
        "asymmetric-strided", "padding asymmetric stride", "C3 C4", (2, 5, 4, 1), (3, 2, 1, 3),
        stride=[2, 3], padding=[[0, 2], [3, 1]],
    )  # fmt: skip
    add(
        "same-even-kernel", "padding asymmetric", "C4", (1, 3, 4, 1), (2, 4, 1, 2),
        padding=[[0, 1], [1, 2]],
    )  # fmt: skip
    add("window-in-padding", "padding", "C4", (1, 2, 2, 1), (2, 1, 1, 2), padding=[[2, 3], [0, 1]])
    add("dilation-rows", "dilation", "C3", (1, 5, 3, 2), (3, 2, 2, 1), dilation=[2, 1])
    add("dilation-columns", "dilation square", "C3", (2, 4, 6, 1), (2, 2, 1, 2), dilation=[1, 3])
    add(
        "dilation-padded", "dilation padding", "C3 C4", (1, 4, 4, 1), (3, 2, 1, 2),
        dilation=[2, 3], padding=[[2, 1], [1, 0]],
    )  # fmt: skip
    everything = {"stride": [2, 1], "padding": [[1, 2], [0, 3]], "dilation": [1, 2]}
    add(
        "everything", "stride padding asymmetric dilation groups", "C1 C2 C3 C4 C5",
        (2, 4, 5, 2), (3, 2, 1, 4), ALL, groups=2, **everything,
    )  # fmt: skip
    add("groups", "groups", "C5", (2, 3, 4, 4), (2, 2, 2, 6), groups=2)
    add("groups-three", "groups", "C5", (1, 2, 3, 3), (2, 1, 1, 6), groups=3)
    add("depthwise", "groups", "C5", (1, 4, 3, 3), (2, 2, 1, 3), groups=3)
    add(
        "depthwise-multiplier", "groups stride", "C5", (1, 4, 5, 2), (3, 3, 1, 6),
        groups=2, stride=[1, 2],
    )  # fmt: skip
    add("one-example", "small", "C1 C2", (1, 3, 3, 2), (2, 2, 2, 2))
    add("one-window", "small", "C1 C2", (2, 3, 2, 2), (3, 2, 2, 3))
    add("one-pixel", "small padding", "C1 C4", (1, 1, 1, 2), (3, 3, 2, 1), padding=same)
    add("row-image", "small", "C1 C2", (1, 1, 5, 1), (1, 3, 1, 2))
    add("column-image", "small", "C1 C2", (1, 5, 1, 1), (3, 1, 1, 2))
    add("no-bias", "no-bias", "C6", (2, 3, 4, 1), (2, 2, 1, 3), ALL, bias=None)
    add(
        "no-bias-groups", "no-bias groups", "C5 C6", (1, 3, 2, 2), (2, 2, 1, 4), bias=None, groups=2
    )  # fmt: skip
    add("no-bias-pointwise", "no-bias", "C6", (2, 1, 2, 3), (1, 1, 3, 2), bias=None)
    add("empty-batch", "empty-batch", "C8", (0, 3, 4, 2), (2, 2, 2, 3))
    add(
        "uneven-upstream", "uneven-upstream", "C2", (2, 3, 3, 1), (2, 2, 1, 2),
        dy=random.spread(2, 2, 2, 2),
    )  # fmt: skip
    add(
        "zero-upstream",
        "uneven-upstream",
        "C2",
        (1, 3, 4, 2),
        (2, 2, 2, 2),
        dy=np.zeros((1, 2, 3, 2)),
    )
    level = 1e4 + random.uniform(1, 3, 4, 1)
    add(
        "cancellation", "cancellation", "C1 C2 C10", (1, 3, 4, 1), (2, 2, 1, 2), x=level,
        weight=tensor([[1, 2], [-1, -2]], [[-1, 0.5], [1, -0.5]]).reshape(2, 2, 1, 2),
    )  # fmt: skip
    add(
        "wide-range", "cancellation", "C1 C2 C10", (2, 3, 4, 2), (2, 3, 2, 2),
        x=random.spread(2, 3, 4, 2), weight=random.spread(2, 3, 2, 2),
    )  # fmt: skip
    add("many-terms", "cancellation", "C1 C2 C10", (1, 3, 3, 24), (3, 3, 24, 2), padding=same)
    for name, value in (("nan", np.nan), ("infinite", np.inf)):
        x = random.uniform(2, 3, 4, 2)
        x[1, 0, 3, 1] = value
        add(f"{name}-pixel", "nonfinite", "C7", x.shape, (2, 2, 2, 3), x=x)
        add(
            f"{name}-pixel-groups",
            "nonfinite groups",
            "C5 C7",
            x.shape,
            (2, 2, 1, 4),
            x=x,
            groups=2,
        )
    add("many-examples", "divided", "C1 C2", (35, 3, 4, 2), (2, 2, 2, 3))
    add(
        "many-examples-stride",
        "divided stride",
        "C2 C3",
        (33, 5, 4, 1),
        (2, 2, 1, 2),
        stride=[2, 1],
    )
    add("many-examples-pointwise", "divided", "C1 C2", (34, 1, 2, 2), (1, 1, 2, 2))
    bad = "bad-geometry"
    add("kernel-too-large", bad, "C9", (1, 3, 4, 1), (4, 2, 1, 1))
    add("dilated-kernel-too-large", bad, "C9", (1, 3, 4, 1), (2, 2, 1, 1), dilation=[1, 4])
    add("channel-mismatch", bad, "C9", (1, 3, 4, 3), (2, 2, 2, 2))
    add("groups-do-not-divide", bad, "C9", (1, 3, 4, 4), (2, 2, 2, 3), groups=2)
    add("stride-zero", bad, "C9", (1, 3, 4, 1), (2, 2, 1, 1), stride=[0, 1])
    add("bias-mismatch", bad, "C9", (1, 3, 4, 1), (2, 2, 1, 2), bias=random.uniform(3))
    add("empty-batch-stride", "empty-batch", "C8", (0, 5, 4, 1), (2, 1, 1, 2), stride=[2, 1])
    _dtype_cases.refused(
        c, "C11",
        {"x": random.uniform(2, 3, 4, 2), "weight": random.uniform(2, 3, 2, 3), "bias": random.uniform(3),
         "dy": random.uniform(2, 2, 2, 3, low=-2.0, high=2.0)},
    )  # fmt: skip


PARAMS = (
    Param("stride", "[rows, columns]: pixels from one window to the next", default=[1, 1]),
    Param("padding", "[[top, bottom], [left, right]]: zeros added", default=[[0, 0], [0, 0]]),
    Param("dilation", "[rows, columns]: pixels from one tap to the next", default=[1, 1]),
    Param("groups", "blocks of channels that do not see each other", default=1),
)


OPERATION = Operation(
    id="layer.conv2d",
    summary="The two-dimensional convolution layer (cross-correlation), with its gradients.",
    formula="y[n,i,j,o] = b[o] + Σ_{a,b,c} x[n, i·s + a·d - top, j·s + b·d - left, c] · w[a,b,c,o]",
    sources=(
        "V. Dumoulin, F. Visin: A guide to convolution arithmetic for deep learning. arXiv:1603.07285",
        "Y. LeCun et al.: Gradient-based learning applied to document recognition. Proc. IEEE 86, 1998",
    ),
    constraints=CONSTRAINTS,
    inputs={
        "x": "(N, H, W, I)",
        "weight": "(kh, kw, I/groups, O)",
        "bias": "(O,), or null",
        "dy": "(N, OH, OW, O): the upstream gradient, dL/dy",
    },
    outputs={
        "y": "(N, OH, OW, O)",
        "dx": "like x",
        "dweight": "like weight",
        "dbias": "like bias; null without one",
    },
    params=PARAMS,
    oracle=oracle,
    tolerance=tolerance,
    tolerance_why=(
        "A sum of K products has an error of at most K·u times the sum of its absolute terms, in any order"
        " and with or without fused multiply-add. K is kh·kw·I/groups (and one addition for the bias) for y,"
        " at most kh·kw·O/groups for dx, N·OH·OW for dW; db adds N·OH·OW terms. Transforms that trade"
        " products for cancelling sums (Winograd, FFT) are not an order of these sums and may exceed it."
    ),
    flags=FLAGS,
    cases=cases,
    mistakes=MISTAKES,
    dialects={"tensorflow": {"subnormals": "flush"}},
)  # fmt: skip
