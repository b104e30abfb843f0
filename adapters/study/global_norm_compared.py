"""The global-norm clip compared: with other clips, with PyTorch's epsilon, among the libraries."""

from __future__ import annotations

import math

import numpy as np

from adapters.study import clips
from adapters.study.cases import NAMES, case, number, settings
from adapters.study.clips import at_value, cosine_words, direction, flat
from adapters.study.global_norm_numbers import (
    OPERATION,
    clip,
    coefficient,
    given,
    given_norm,
    label,
)
from adapters.study.model import Choice, Control, Fill, Table
from adapters.study.numbers import exact, rounded, ulp_words, ulps
from refimpl import clipping

LARGE = f"{OPERATION}/long-uneven-f32"
EPS_CASES = (
    "two-tensors",
    "milli-threshold",
    "micro-threshold",
    "at-one-millionth",
    "tiny-threshold",
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
