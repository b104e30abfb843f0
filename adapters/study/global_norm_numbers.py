"""The numbers of the page on the global-norm clip."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np

from adapters.study import clips
from adapters.study.cases import case, number, run, setting_of
from adapters.study.clips import at_value, flat
from adapters.study.model import Choice, Control, Fill, Mark, Plot, Table
from adapters.study.numbers import exact, vector
from conformance.operation import Setting
from refimpl import clipping, norms, numpy_forms

OPERATION = "clip.global_norm"
CASE = f"{OPERATION}/two-tensors-f32"
EDGES = (
    ("zero gradient", "zero-gradient"), ("threshold 0", "zero-limit"),
    ("zero gradient, threshold 0", "zero-gradient-zero-limit"), ("threshold ∞", "infinite-limit"),
    ("NaN element", "nan-gradient"), ("infinite element", "infinite-gradient"),
    ("squares overflow", "square-overflow"), ("squares vanish", "square-underflow"),
    ("the norm overflows", "norm-overflow"), ("subnormal elements", "subnormal-only"),
    ("norm = threshold", "at-threshold"), ("negative threshold", "negative-limit"),
)  # fmt: skip
Grads = list[Any]


def clip(grads: Grads, c: float, setting: Setting | None = None) -> tuple[Grads, Any]:
    """Return refimpl's clipped gradients and norm under a library's setting."""
    clipped, norm = run(clipping.clip_global_norm, grads, setting or {}, c)
    return clipped, norm


def coefficient(grads: Grads, c: float, setting: Setting) -> Any:
    """Return the factor that refimpl multiplies with: what becomes of a 1 under the same norm."""
    dials = {k: v for k, v in setting.items() if k in norms.NormDials.__annotations__}
    made = norms.NormClip(c, **dials)
    one = np.ones(1, np.float32)
    return norms.clipper(norms.scaled_norm(grads, made), made)(one)[0]


@cache
def given() -> Grads:
    """Return the gradient of the fixture."""
    return list(case(CASE).inputs["grads"])


@cache
def given_norm() -> Any:
    """Return its norm."""
    return clipping.global_norm(given())


def squares(choice: Choice) -> Fill:
    """Fill in the sum of squares."""
    grads = given()
    sums = [numpy_forms.sum_of_squares([g], g.dtype) for g in grads]
    total = numpy_forms.sum_of_squares(grads, np.float32)
    rows = [
        (f"`g{i + 1}`", vector(g), exact(s or 0.0))
        for i, (g, s) in enumerate(zip(grads, sums, strict=True))
    ]
    rows.append(("all together", f"{flat(grads).size} elements", exact(total or 0.0)))
    return Fill(
        rf"S = {clips.squares(flat(grads))} = «S»",
        {"S": exact(total or 0.0)},
        f"Big elements rule the sum: $4^2$ alone is half of {exact(total or 0.0)}.",
        (Table("The gradient, tensor by tensor", ("tensor", "elements", "sum of squares"), tuple(rows),
               ("", "", "here")),),
    )  # fmt: skip


def root(choice: Choice) -> Fill:
    """Fill in the norm."""
    total = numpy_forms.sum_of_squares(given(), np.float32)
    each = [clipping.global_norm([g]) for g in given()]
    rows = [(f"`g{i + 1}`", exact(n)) for i, n in enumerate(each)]
    rows.append(("all together", exact(given_norm())))
    wrong = exact(np.float32(each[0] + each[1]))
    return Fill(
        r"n = \sqrt{«S»} = «n»",
        {"S": exact(total or 0.0), "n": exact(given_norm())},
        f"Norms do not add: {exact(each[0])} + {exact(each[1])} = {wrong} is not {exact(given_norm())}. Their "
        f"squares do.",
        (Table("Norms", ("tensor", "2-norm"), tuple(rows), ("", "", "here")),),
    )


def factor(choice: Choice) -> Fill:
    """Fill in the factor."""
    c, setting = choice["threshold"], setting_of(OPERATION, choice)
    n, k = given_norm(), coefficient(given(), choice["threshold"], setting)
    plus = " + 10^{-6}" if setting.get("eps") else ""
    says = "The norm is at most the threshold: the factor is 1 and nothing changes."
    if c == 0 and setting.get("zero_limit") == "disabled":
        says = "This library takes a threshold of 0 for “do not clip”."
    elif c == math.inf and setting.get("infinite_limit") == "nan":
        says = "This library computes ∞ · 0 on its way, and gets NaN."
    elif n > c:
        says = "The norm exceeds the threshold: the gradient is shortened to it."
    elif plus and k != 1:
        says = (
            f"The norm equals the threshold, yet $n + 10^{{-6}}$ exceeds it: this library clips by "
            f"{exact(k)}."
        )
    stops = [s.value for s in control().stops if s.value < math.inf]
    line = [(s, float(coefficient(given(), s, setting))) for s in stops]
    return Fill(
        rf"k = \min\left(1, \frac{{«c»}}{{«n»{plus}}}\right) = «k»",
        {"c": label(c), "n": exact(n), "k": exact(k)},
        says,
        (
            Plot("The factor $k$ for each threshold", "threshold c", "factor k", (
                Mark("line", "factor", tuple(line), clips.BLUE),
                Mark("upright", "break point: c = n", ((float(n),),), clips.GREY),
                *([Mark("dots", "here", ((c, float(k)),), clips.ORANGE)] if c < math.inf else []),
            )),
        ),
    )  # fmt: skip


def scaled(choice: Choice) -> Fill:
    """Fill in the clipped gradient."""
    c, setting = choice["threshold"], setting_of(OPERATION, choice)
    clipped, _ = clip(given(), c, setting)
    wanted, _ = clip(given(), c)
    k = coefficient(given(), c, setting)
    first = given()[0].ravel()[0]
    after = clipping.global_norm(clipped)
    return Fill(
        r"\hat g_{1} = «k» \cdot «g» = «r»",
        {"k": exact(k), "g": exact(first), "r": exact(clipped[0].ravel()[0])},
        f"Every element of every tensor is multiplied by the same {exact(k)}; the norm is now {exact(after)}.",
        (
            clips.bars("Each element before and after", given(), clipped),
            clips.before_after("The numbers", given(), clipped, wanted),
        ),
    )


def label(c: float) -> str:
    """Return a threshold as float32 prints it."""
    return exact(np.float32(c))


@cache
def control() -> Control:
    """Return the threshold's slider."""
    usual = (0.0, 0.25, 0.5, 1, 1.5, 2, 3, 3.5, 4, 4.5, 5, 6, 7, 8, 10, math.inf)
    stops = clips.thresholds(usual, number(case(CASE).params["max_norm"]), float(given_norm()))
    return Control("threshold", "threshold c", stops, "slider", at_value(stops, 2.5))
