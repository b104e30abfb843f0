"""The numbers of the page on the global-norm clip."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np

from conformance.operation import Setting
from conformance.study import clips
from conformance.study.cases import NAMES, case, number, run, setting_of, settings
from conformance.study.clips import at_value, cosine_words, direction, flat
from conformance.study.model import Choice, Control, Fill, Mark, Plot, Table
from conformance.study.numbers import exact, rounded, ulp_words, ulps, vector
from refimpl import clipping, norms, numpy_forms

OPERATION = "clip.global_norm"
CASE = f"{OPERATION}/two-tensors-f32"
LARGE = f"{OPERATION}/long-uneven-f32"
EPS_CASES = (
    "two-tensors",
    "milli-threshold",
    "micro-threshold",
    "at-one-millionth",
    "tiny-threshold",
)
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


def turned(choice: Choice) -> Fill:
    """Fill in the angle that each clip turns by."""
    c = choice["threshold"]
    g = given()
    ways = [("clip by global norm", clip(g, c)[0])]
    bound = min(c, 3e38)
    ways.append(("clip by value to ±c", clipping.clip_value(g, min=-bound, max=bound)))
    ends = [("gradient", (g[0].ravel()[0], g[1].ravel()[0]))]
    rows = [("the gradient itself", exact(given_norm()), "1", "0°")]
    for name, clipped in ways:
        cosine, degrees = direction(g, clipped)
        length = exact(clipping.global_norm(clipped))
        rows.append((name, length, cosine_words(cosine), clips.angle_words(degrees)))
        ends.append((name.replace(" ", "_"), (clipped[0].ravel()[0], clipped[1].ravel()[0])))
    valued = ways[1][1]
    dot = float(np.dot(flat(g).astype(np.float64), flat(valued).astype(np.float64)))
    cosine, degrees = direction(g, valued)
    says = "Nothing is clipped, so nothing turns."
    if degrees > 1e-4:
        says = (
            "The value clip cuts the large elements and spares the small ones, so their proportions change:"
            f" the arrow turns by {clips.angle_words(degrees)}. The norm clip keeps all proportions, so it "
            f"cannot turn."
        )
    elif math.isnan(degrees):
        says = "Threshold 0 leaves no gradient, and a zero vector has no direction."
    elif clips.flat(ways[0][1]).tolist() != flat(g).tolist():
        says = (
            "The norm clip has shortened the gradient; no single element exceeds c, so the value clip "
            "does nothing."
        )
    return Fill(
        r"\cos\theta_{\mathrm{value}} = \frac{«dot»}{«n» \cdot «m»} = «cos»",
        {"dot": rounded(dot, 7), "n": exact(given_norm()), "m": exact(clipping.global_norm(valued)),
         "cos": cosine_words(cosine)},
        says,
        (
            clips.arrows("The two largest elements, 3 and −4, as an arrow", **dict(ends)),
            Table("All seven elements", ("", "length", "cosine with the gradient", "angle"), tuple(rows)),
        ),
    )  # fmt: skip


def apart(choice: Choice) -> Fill:
    """Compare one factor with a factor each."""
    c = choice["threshold"]
    g = given()
    together, _ = clip(g, c)
    apart, own = clipping.clip_norm(g, c)
    k = coefficient(g, c, {})
    rows = []
    for i, n in enumerate(own):
        factor = coefficient([g[i]], c, {})
        rows.append((f"`g{i + 1}`", exact(n), exact(factor), exact(k)))
    turned = direction(g, apart)[1]
    joint = exact(clipping.global_norm(apart))
    says = (
        f"With a factor each the joint norm is {joint}, and the gradient turns by "
        f"{clips.angle_words(turned)}."
    )
    if math.isnan(turned):
        says = "Threshold 0 leaves no gradient."
    elif turned < 1e-4:
        says = f"With a factor each the joint norm is {joint}; here the direction stays, as no factor differs."
    return Fill(
        r"k_1 = \min\left(1, \frac{«c»}{«n1»}\right) = «k1» \quad k_2 = \min\left(1, "
            r"\frac{«c»}{«n2»}\right) = «k2»",
        {"c": label(c), "n1": rows[0][1], "k1": rows[0][2], "n2": rows[1][1], "k2": rows[1][2]},
        says,
        (
            Table("One factor, or one each",
                  ("tensor", "its own norm", "its own factor (`clip.norm`)",
                      "the joint factor (`clip.global_norm`)"),
                  tuple(rows)),
            clips.bars("Clipped together (grey) and each by itself", together, apart),
        ),
    )  # fmt: skip


def eps(choice: Choice) -> Fill:
    """Compare c/n with PyTorch's c/(n + 1e-6)."""
    rows = []
    values: dict[str, str] = {}
    for name in EPS_CASES:
        chosen = case(f"{OPERATION}/{name}-f32")
        g, c = chosen.inputs["grads"], number(chosen.params["max_norm"])
        torch = settings(OPERATION)["torch"]
        k, kt, n = coefficient(g, c, {}), coefficient(g, c, torch), clip(g, c)[1]
        share = rounded(float(kt) / float(k), 7)
        rows.append((f"`{name}-f32`", exact(n), label(c), exact(k), exact(kt), share))
        if name == choice["example"]:
            values = {"c": label(c), "n": exact(n), "k": exact(kt), "share": share}
    states = ["here" if name == choice["example"] else "" for name in EPS_CASES]
    return Fill(
        r"k_{\mathrm{torch}} = \frac{«c»}{«n» + 10^{-6}} = «k» = «share» \cdot \frac{c}{n}",
        values,
        f"PyTorch's clipped gradient is {values['share']} of what was asked for.",
        (Table("The same million-th beside norms of different size",
               ("case", "norm n", "threshold c", "c / n", "PyTorch's factor", "PyTorch's share"),
               tuple(rows), tuple(states)),),
    )  # fmt: skip


def libraries(choice: Choice) -> Fill:
    """Compare the libraries at one threshold."""
    c = choice["threshold"]
    wanted, _ = clip(given(), c)
    rows, states = [], []
    for name, setting in settings(OPERATION).items():
        try:
            clipped, _ = clip(given(), c, setting)
        except ValueError as refusal:
            rows.append((NAMES[name], "refused", str(refusal), ""))
            states.append("bad")
            continue
        apart = max(ulps(a, b) for a, b in zip(clipped, wanted, strict=True))
        k = coefficient(given(), c, setting)
        rows.append((NAMES[name], exact(k), exact(clipped[0].ravel()[0]), ulp_words(apart)))
        states.append("" if apart == 0 else "here")
    return Fill(
        r"\frac{«c»}{«n»} \quad\text{or}\quad \frac{«c»}{«n» + 10^{-6}} \quad\text{or}\quad «c» \cdot "
            r"\min\left(\frac{1}{«n»}, \frac{1}{«c»}\right)",
        {"c": label(c), "n": exact(given_norm())},
        "A unit in the last place (ULP) is the distance to the neighbouring float32.",
        (Table("refimpl under each library's conventions", ("library", "factor", "first element",
            "largest difference"),
               tuple(rows), tuple(states)),),
    )  # fmt: skip


def histogram(choice: Choice) -> Fill:
    """Fill in the histogram of a large gradient."""
    g = list(case(LARGE).inputs["grads"])
    c = choice["large"]
    clipped, n = clip(g, c)
    k = coefficient(g, c, {})
    return Fill(
        r"k = \min\left(1, \frac{«c»}{«n»}\right) = «k»",
        {"c": exact(c), "n": exact(n), "k": exact(k)},
        "The histogram keeps its shape and becomes narrower: no pile at an edge, as a value clip makes it."
        if k < 1 else "Nothing changes.",
        (clips.histogram(f"{flat(g).size:,} elements before and after", flat(g), flat(clipped), -1.0, 1.0,
            41),),
    )  # fmt: skip


def label(c: float) -> str:
    """Return a threshold as float32 prints it."""
    return exact(np.float32(c))


@cache
def control() -> Control:
    """Return the threshold's slider."""
    usual = (0.0, 0.25, 0.5, 1, 1.5, 2, 3, 3.5, 4, 4.5, 5, 6, 7, 8, 10, math.inf)
    stops = clips.thresholds(usual, number(case(CASE).params["max_norm"]), float(given_norm()))
    return Control("threshold", "threshold c", stops, "slider", at_value(stops, 2.5))


def large_control() -> Control:
    """Return the slider of the large gradient."""
    chosen = case(LARGE)
    n = clipping.global_norm(chosen.inputs["grads"])
    stops = clips.thresholds(
        (5, 10, 20, 30, 40, 50, 60), number(chosen.params["max_norm"]), float(n)
    )
    return Control(
        "large", "threshold for the large gradient", stops, "slider", at_value(stops, 20.0)
    )
