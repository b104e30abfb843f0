"""The convolution forward and backward, cell by cell."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from adapters.study.cases import case
from adapters.study.excerpts import excerpt
from adapters.study.model import Cell, Choice, Control, Fill, Grid, Stage, Stop, Table, Topic
from adapters.study.numbers import exact, rounded
from refimpl.layers.conv2d import _correlate, conv2d

CASE = "layer.conv2d/one-channel-f32"
Place = tuple[int, int]


@cache
def run() -> dict[str, Any]:
    """Return what goes into refimpl's convolution and what comes out, forward and backward."""
    inputs = dict(case(CASE).inputs)
    y, backprop = conv2d(inputs["x"], inputs["weight"], inputs["bias"])
    dx, dweight, dbias = backprop(inputs["dy"])
    return inputs | {"y": y, "dx": dx, "dweight": dweight, "dbias": dbias}


def _image(name: str, example: int = 0) -> Any:
    tensor = run()[name]
    return tensor[:, :, 0, 0] if name.endswith("weight") else tensor[example, :, :, 0]


def _grid(
    caption: str, name: str, marked: dict[Place, str], sets: str = "", example: int = 0
) -> Grid:
    image = _image(name, example)
    top = float(np.max(np.abs(image)))
    width = image.shape[1]
    rows = tuple(
        tuple(
            Cell(rounded(float(value), 3), float(value) / top, marked.get((i, j), ""),
                 (sets, i * width + j) if sets else None)
            for j, value in enumerate(line)
        )
        for i, line in enumerate(image)
    )  # fmt: skip
    return Grid(caption, rows)


def _terms(pairs: list[tuple[str, Any, str, Any]], heads: tuple[str, str]) -> Table:
    rows = tuple(
        (f"`{left}`", exact(a), f"`{right}`", exact(b), exact(a * b)) for left, a, right, b in pairs
    )
    return Table("Every product", (heads[0], "", heads[1], "", "product"), rows)


def _products(pairs: list[tuple[Any, Any]]) -> str:
    """Return a sum of products as LaTeX, each factor with three digits."""
    return " + ".join(f"({rounded(float(a), 3)})({rounded(float(b), 3)})" for a, b in pairs)


def _forward(choice: Choice) -> Fill:
    p, q = divmod(choice["out"], 2)
    x, w, y = _image("x"), _image("weight"), _image("y")
    taps = [(i, j) for i in range(w.shape[0]) for j in range(w.shape[1])]
    table = _terms(
        [(f"x[{p + i}, {q + j}]", x[p + i, q + j], f"w[{i}, {j}]", w[i, j]) for i, j in taps],
        ("input", "kernel"),
    )
    bias = run()["bias"][0]
    row = _products([(x[p + i, q + j], w[i, j]) for i, j in taps])
    return Fill(
        rf"y_{{«p»«q»}} = «b» + {row} = «y»",
        {"p": str(p), "q": str(q), "b": exact(bias), "y": exact(y[p, q])},
        "Point at a cell of the output: the window on the input and the kernel are multiplied cell by cell, "
        "and added up.",
        (
            _grid("Output y: choose a cell", "y", {(p, q): "here"}, "out"),
            _grid("Input x: the window", "x", {(p + i, q + j): "patch" for i, j in taps}),
            _grid("Kernel w", "weight", {}),
            table,
        ),
    )


def _to_kernel(choice: Choice) -> Fill:
    i, j = divmod(choice["tap"], 3)
    x, dy, dweight = run()["x"], run()["dy"], _image("dweight")
    places = [
        (n, p, q)
        for n in range(dy.shape[0])
        for p in range(dy.shape[1])
        for q in range(dy.shape[2])
    ]
    table = _terms(
        [(f"dy[{n}, {p}, {q}]", dy[n, p, q, 0], f"x[{n}, {p + i}, {q + j}]", x[n, p + i, q + j, 0])
         for n, p, q in places], ("upstream gradient", "input")
    )  # fmt: skip
    window = {(p + i, q + j): "patch" for n, p, q in places if n == 0}
    first = _products([(dy[n, p, q, 0], x[n, p + i, q + j, 0]) for n, p, q in places[:3]])
    return Fill(
        rf"\frac{{\partial L}}{{\partial w_{{«i»«j»}}}} = {first} + \dots = «d»",
        {"i": str(i), "j": str(j), "d": exact(dweight[i, j])},
        f"This kernel cell has touched {len(places)} inputs, {len(places) // 2} of each image: each one "
        f"times the gradient of the output it went into.",
        (
            _grid("Gradient of the kernel: choose a cell", "dweight", {(i, j): "here"}, "tap"),
            _grid("Upstream gradient dy, first image", "dy", {}),
            _grid("Input x, first image: what this cell has touched", "x", window),
            table,
        ),
    )


def _to_input(choice: Choice) -> Fill:
    r, c = divmod(choice["in"], 4)
    w, dy, dx = _image("weight"), _image("dy"), _image("dx")
    reached = [
        (p, q, r - p, c - q)
        for p in range(dy.shape[0]) for q in range(dy.shape[1])
        if 0 <= r - p < w.shape[0] and 0 <= c - q < w.shape[1]
    ]  # fmt: skip
    table = _terms(
        [(f"dy[{p}, {q}]", dy[p, q], f"w[{i}, {j}]", w[i, j]) for p, q, i, j in reached],
        ("upstream gradient", "kernel"),
    )
    many = len(reached)
    shown = _products([(dy[p, q], w[i, j]) for p, q, i, j in reached])
    values = {"r": str(r), "c": str(c), "d": exact(dx[r, c])}
    return Fill(
        rf"\frac{{\partial L}}{{\partial x_{{«r»«c»}}}} = {shown} = «d»",
        values,
        f"This input went into {many} output cell{'s' * (many != 1)}, each time through another cell of the "
        f"kernel: the"
        " gradients come back the same ways.",
        (
            _grid("Gradient of the input: choose a cell", "dx", {(r, c): "here"}, "in"),
            _grid(
                "Upstream gradient dy: where it went",
                "dy",
                {(p, q): "patch" for p, q, _, _ in reached},
            ),
            _grid(
                "Kernel w: through which cells",
                "weight",
                {(i, j): "patch" for _, _, i, j in reached},
            ),
            table,
        ),
    )


def _to_bias(choice: Choice) -> Fill:
    dy = run()["dy"]
    total = run()["dbias"][0]
    rows = tuple((f"image {n}", exact(np.sum(dy[n, :, :, 0], dtype=np.float32))) for n in range(2))
    return Fill(
        r"\frac{\partial L}{\partial b} = «a» + («c») \approx «d»".replace(r"\approx", "="),
        {"a": rows[0][1], "c": rows[1][1], "d": exact(total)},
        "The bias went into every output cell once, so its gradient is the sum of them all.",
        (Table("Sums of the upstream gradient", ("", "sum"), rows), _grid("dy, first image", "dy", {}),
         _grid("dy, second image", "dy", {}, example=1)),
    )  # fmt: skip


def topic() -> Topic:
    """Return the page."""
    out = tuple(Stop(i, f"{i // 2},{i % 2}") for i in range(8))
    tap = tuple(Stop(i, f"{i // 3},{i % 3}") for i in range(6))
    into = tuple(Stop(i, f"{i // 4},{i % 4}") for i in range(20))
    return Topic("conv", "Convolution, forward and backward", LEAD, (
        Stage("forward", "Forward: window times kernel", """The kernel is laid on the input, without
            being flipped. What lies on each other is multiplied, and the sum, with the bias, is one
            cell of the output. Then the kernel moves on.""",
            r"y_{pq} = b + \sum_{i,j} x_{p+i,\,q+j} \, w_{ij}",
            (excerpt(_correlate, "windows = xp.reshape", "flat_y =", ("product = ", "flat_y =")),), CASE,
                _forward, ("out",)),
        Stage("kernel", "Backward: the gradient of the kernel", """A cell of the kernel is used once
            for every output cell. Its gradient is the sum over all of them, in all images: the
            gradient that comes from above, times the input that was under the cell.""",
            r"\frac{\partial L}{\partial w_{ij}} = \sum_{n,p,q} dy_{npq} \, x_{n,\,p+i,\,q+j}",
            (excerpt(_correlate, "dweight = _merge"),), CASE, _to_kernel, ("tap",)),
        Stage("input", "Backward: the gradient of the input", """An input cell goes into every
            output cell whose window it lies in. Back come their gradients, each times the kernel
            cell that it passed through. At the border there are fewer.""",
            r"\frac{\partial L}{\partial x_{rc}} = \sum_{p,q} dy_{pq} \, w_{r-p,\,c-q}",
            (excerpt(_correlate, "dwindows =", "dx = scatter", ("dwindows =", "dx = scatter")),), CASE,
                _to_input, ("in",)),
        Stage("bias", "Backward: the gradient of the bias", "The simplest of the three.",
            r"\frac{\partial L}{\partial b} = \sum_{n,p,q} dy_{npq}",
            (excerpt(_correlate, "dbias = None"),), CASE, _to_bias),
    ), (
        Control("out", "output cell (row, column)", out, "cell", 3),
        Control("tap", "kernel cell (row, column)", tap, "cell", 1),
        Control("in", "input cell (row, column)", into, "cell", 9),
    ), ("V. Dumoulin, F. Visin: A guide to convolution arithmetic for deep learning. 2016",))  # fmt: skip


LEAD = """One image, one kernel of 2 × 3, one channel: small enough to see every product. The lines
are those of the portable form; on NumPy a second form computes the same numbers in parts that fit
the processor's cache."""
