"""What the two pooling layers share: parameters, constraints and cases of their geometry."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from conformance.cases import Cases, Stream
from conformance.exact import Reject
from conformance.operation import Flag, Mistake, Param
from conformance.oracle.windows import place

Settings = dict[str, Any]

PARAMS = (
    Param("window", "[rows, columns]: the taps of a window", required=True),
    Param("stride", "[rows, columns]: pixels from one window to the next; null: the window"),
    Param("padding", "[[top, bottom], [left, right]], each at least 0", default=[[0, 0], [0, 0]]),
    Param("dilation", "[rows, columns]: pixels from one tap to the next", default=[1, 1]),
    Param("ceil_mode", "whether a remainder gets a window of its own", default=False),
)

CONSTRAINTS = {
    "C4": "A window starts every `stride` pixels (by default the window's extents), its taps lie"
    " `dilation` pixels apart; a remainder in which no whole window fits is dropped.",
    "C5": "ceil_mode adds one window along an axis if there is a remainder, unless that window would start"
    " beyond the end of the image (padding before it + image): in the padding after it, or later.",
    "C6": "Refused: a geometry without a single window, a window, stride or dilation below 1, a padding"
    " below 0.",
}

FLAGS = {
    "basic": Flag("BASIC", "Windows side by side; different extents along every axis."),
    "overlap": Flag("BASIC", "Windows overlap: gradients add up."),
    "stride": Flag("BASIC", "Strides that differ from the window, or are left to their default."),
    "padding": Flag("BASIC", "Padding around the image."),
    "asymmetric": Flag("EDGE_CASE", "Each of the four sides is padded differently."),
    "dilation": Flag("BASIC", "Taps more than one pixel apart."),
    "ceil": Flag("EDGE_CASE", "ceil_mode: a last window that overhangs, or is dropped."),
    "thin": Flag(
        "KNOWN_BUG",
        "Images one pixel high or wide, one channel, one window.",
        ("tensorflow/tensorflow#48773",),
    ),
    "empty-batch": Flag("EDGE_CASE", "No example."),
    "uneven-upstream": Flag("EDGE_CASE", "dy is mostly zero, or spans orders of magnitude."),
    "bad-geometry": Flag("EDGE_CASE", "Parameters that do not fit the image, or anything."),
}


def add_case(
    c: Cases, random: Stream, name: str, flags: str, labels: str, x: Any, dtypes: Iterable[str],
    params: Settings,
) -> None:  # fmt: skip
    """Add a case whose upstream gradient is shaped as the geometry asks and differs everywhere."""
    params = dict(params)
    dy = params.pop("dy", None)
    if dy is None:
        settings = {param.name: param.default for param in PARAMS} | params
        try:
            rows, columns = place(x.shape, params["window"], settings)
            extents = len(rows.windows), len(columns.windows)
        except Reject:
            extents = 1, 1
        dy = random.uniform(x.shape[0], *extents, x.shape[3], low=-3.0, high=3.0)
    c.add(name, flags, labels, {"x": x, "dy": dy}, params, dtypes)


def add_geometries(add: Callable[..., None], every: tuple[str, ...]) -> None:
    """Add the cases that ask where windows lie; constraint C7 of both layers is about padding."""
    two, one, same = [2, 2], [1, 1], [[1, 1], [1, 1]]
    add("basic", "basic", "C1 C2 C10", (2, 4, 6, 3), every, window=[2, 3], stride=[2, 3])
    add("default-stride", "basic stride", "C1 C4", (1, 5, 4, 2), every, window=[3, 2])
    add("overlap", "overlap", "C2 C10", (1, 4, 5, 2), every, window=[3, 2], stride=one)
    add("stride-columns", "stride overlap", "C4", (1, 3, 7, 1), window=two, stride=[1, 3])
    add("gaps", "stride", "C2 C4", (2, 5, 7, 1), window=[1, 2], stride=[3, 4])
    add("remainder-dropped", "stride", "C4", (1, 5, 6, 2), window=[2, 4])
    add("padding-same", "padding overlap", "C7", (1, 3, 4, 2), every, window=[3, 3], stride=one,
        padding=same)  # fmt: skip
    add("asymmetric", "padding asymmetric", "C7", (2, 3, 4, 1), window=[2, 3], stride=[1, 2],
        padding=[[1, 0], [0, 2]])  # fmt: skip
    add("asymmetric-columns", "padding asymmetric", "C7", (1, 2, 5, 2), window=[1, 3], stride=[1, 2],
        padding=[[0, 0], [2, 1]])  # fmt: skip
    add(
        "dilation",
        "dilation overlap",
        "C4",
        (1, 5, 7, 1),
        window=[2, 3],
        stride=one,
        dilation=[3, 2],
    )
    add("dilation-rows", "dilation stride", "C4", (2, 6, 3, 1), window=[3, 2], stride=[1, 1],
        dilation=[2, 1])  # fmt: skip
    add("dilation-padded", "dilation padding", "C4 C7", (1, 4, 4, 2), window=two, stride=[2, 1],
        padding=[[1, 0], [1, 2]], dilation=[2, 3])  # fmt: skip
    add("ceil", "ceil", "C5", (1, 3, 5, 2), every, window=two, ceil_mode=True)
    add("ceil-no-remainder", "ceil", "C5", (1, 4, 6, 1), window=[2, 3], ceil_mode=True)
    add("ceil-padded", "ceil padding", "C5 C7", (1, 4, 5, 1), window=[3, 3], stride=two, padding=same,
        ceil_mode=True)  # fmt: skip
    add("ceil-dropped-in-padding", "ceil padding", "C5 C7", (1, 2, 3, 2), window=two,
        padding=[[0, 1], [1, 1]], ceil_mode=True)  # fmt: skip
    add("ceil-starts-on-last-pixel", "ceil padding asymmetric", "C5 C7", (1, 3, 4, 1), window=[1, 2],
        stride=[1, 2], padding=[[0, 0], [1, 0]], ceil_mode=True)  # fmt: skip
    add("ceil-far-overhang", "ceil overlap", "C5", (1, 5, 6, 1), window=[4, 5], stride=[3, 4],
        ceil_mode=True)  # fmt: skip
    add("ceil-dilated", "ceil dilation", "C4 C5", (1, 7, 5, 1), window=[2, 3], stride=[3, 2],
        dilation=[2, 1], ceil_mode=True)  # fmt: skip
    add("ceil-window-beyond-image", "ceil", "C5", (1, 2, 3, 1), window=[2, 4], stride=two,
        ceil_mode=True)  # fmt: skip
    add("one-row", "thin", "C1 C2", (1, 1, 5, 1), every, window=[1, 2], stride=one)
    add("one-row-strided", "thin stride", "C1 C2", (1, 1, 5, 1), window=[1, 3], stride=[1, 2])
    add("one-row-padded", "thin padding", "C1 C2 C7", (1, 1, 5, 1), window=[3, 3], stride=one,
        padding=same)  # fmt: skip
    add("one-column", "thin", "C1 C2", (1, 5, 1, 1), window=[2, 1], stride=one)
    add("one-pixel-windows", "thin", "C1 C2", (2, 2, 3, 2), window=one)
    add("whole-image", "thin", "C1 C2", (2, 3, 4, 2), window=[3, 4])
    add("empty-batch", "empty-batch", "C10", (0, 4, 5, 2), window=two)
    add("empty-batch-overlap", "empty-batch", "C10", (0, 3, 4, 1), window=two, stride=one)
    spread = Stream(104).spread(2, 2, 3, 2)
    add("uneven-upstream", "uneven-upstream overlap", "C2", (2, 3, 4, 2), window=two, stride=one,
        dy=spread)  # fmt: skip
    add(
        "zero-upstream",
        "uneven-upstream",
        "C2",
        (1, 4, 4, 1),
        window=two,
        dy=np.zeros((1, 2, 2, 1)),
    )
    lone = np.zeros((1, 3, 2, 2))
    lone[0, 2, 1, 0] = -1.5
    add(
        "one-upstream",
        "uneven-upstream overlap",
        "C2",
        (1, 4, 3, 2),
        window=two,
        stride=one,
        dy=lone,
    )
    bad = "bad-geometry"
    narrow = ("float32", "float16", "bfloat16")
    add("window-too-large", bad, "C6", (1, 3, 4, 1), narrow, window=[2, 5])
    add(
        "dilated-window-too-large",
        bad,
        "C6",
        (1, 3, 4, 1),
        ("float32",),
        window=two,
        dilation=[3, 1],
    )
    add("stride-zero", bad, "C6", (1, 3, 4, 1), ("float32",), window=two, stride=[1, 0])
    add("window-zero", bad, "C6", (1, 3, 4, 1), ("float32",), window=[0, 2], stride=one)
    add(
        "padding-negative",
        bad,
        "C6",
        (1, 3, 4, 1),
        ("float32",),
        window=two,
        padding=[[-1, 0], [0, 0]],
    )


def mistakes(oracle: Callable[[Settings, Settings], Settings]) -> tuple[Mistake, ...]:
    """Return the known mistakes of the geometry of a pooling layer."""

    def change(**new: Callable[[Settings], Any]) -> Callable[[Settings, Settings], Settings]:
        def mistaken(inputs: Settings, settings: Settings) -> Settings:
            oracle(inputs, settings)
            changed = settings | {name: function(settings) for name, function in new.items()}
            rows, columns = place(inputs["x"].shape, changed["window"], changed)
            n, *_, channels = inputs["dy"].shape
            # Where the mistake changes the shape of y, its dy is as good as any.
            dy = np.resize(inputs["dy"], (n, len(rows.windows), len(columns.windows), channels))
            return oracle(inputs | {"dy": dy}, changed)

        return mistaken

    return (
        Mistake(
            "stride ignored", "windows always lie side by side", change(stride=lambda s: s["window"])
        ),
        Mistake(
            "stride of 1", "a stride that is not given is 1", change(stride=lambda s: s["stride"] or [1, 1])
        ),
        Mistake(
            "window transposed", "rows and columns of the window change places",
            change(window=lambda s: s["window"][::-1]),
        ),
        Mistake("dilation ignored", "taps always lie side by side", change(dilation=lambda s: [1, 1])),
        Mistake("ceil_mode ignored", "a remainder is always dropped", change(ceil_mode=lambda s: False)),
        Mistake(
            "ceil_mode keeps every window", "a last window may start in the padding after the image",
            change(ceil_mode=lambda s: s["ceil_mode"] and "always"),
        ),
        Mistake(
            "padding on the other side", "top and bottom, left and right change places",
            change(padding=lambda s: [side[::-1] for side in s["padding"]]),
        ),
    )  # fmt: skip
