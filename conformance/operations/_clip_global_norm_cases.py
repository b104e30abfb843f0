"""The cases of ``clip.global_norm``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from conformance.cases import ALL, COMPLEX, WIDE, Cases, Stream, fixed, same_as, tensor
from conformance.formats import FLOATS


def at_the_edges(add: Callable[..., None], labels: str) -> None:
    """Add what both norm clips are asked: a single number, whose norm needs no square, and far limits."""
    for name, number, limit, dtypes in (
        ("overflow", 1e30, 1.0, ("float32", "bfloat16")), ("300", -300.0, 1.0, ("float16",)),
        ("underflow", -1e-30, 1e-32, ("float32", "bfloat16")),
    ):  # fmt: skip
        flag = "square-underflow" if limit < 1 else "square-overflow"
        add(f"one-number-{name}", flag, labels, [tensor(number)], limit, dtypes)
    for limit in (1e-5, 1e-6):
        add(f"limit-{limit}", "subnormal", labels, [tensor(300, -400)], limit, ("float16",))
    far = 1e161  # finite, and beyond float32: a limit that is rounded to it has become infinite
    add("limit-beyond-float32", "below", "C3", [tensor(3, -4), tensor([1.5])], far, ("float32",))
    add("limit-beyond-float32-infinite", "infinite-gradient", "C6", [tensor(-2, np.inf), tensor([1.5])],
        far, ("float32",))  # fmt: skip
    add("zero-dimensional-minus-zero", "zero-gradient", "C3", [np.array(-0.0)], 1.0)
    add("ord-negative-empty", "bad-ord empty", "C8", [np.zeros(0)], 1.0, ord=-1)


def cases(c: Cases) -> None:
    """Write the cases."""

    def add(
        name: str, flags: str, labels: str, grads: Any, max_norm: Any, dtypes: Any = WIDE, **p: Any
    ) -> None:
        c.add(name, flags, labels, {"grads": grads}, {"max_norm": max_norm, **p}, dtypes)

    random = Stream(1)
    two = [tensor([3, -1], [0.5, 2]), tensor(-4, 0.25, 1)]
    add("two-tensors", "two-tensors", "C1 C2 C4", two, 2.5, ALL)
    add("two-tensors-shuffled", "two-tensors", "C1 C2", two[::-1], 2.5, ALL)
    add("below", "below", "C3 C4", two, 7.0, ALL)
    add("just-below", "below", "C3", [tensor(3, 4)], 5.0078125, ALL)
    add("just-above", "single", "C2", [tensor(3, 4)], 4.984375, ALL)
    add("at-threshold", "at-threshold", "C3", [tensor(3, 4)], 5.0, ALL)
    add(
        "at-threshold-two",
        "at-threshold two-tensors",
        "C3",
        [tensor(6, 0, -2), tensor([3.0])],
        7.0,
        ALL,
    )
    add(
        "at-small-threshold",
        "at-threshold eps-visible",
        "C3",
        [tensor(3, 4) * 2.0**-22],
        5 * 2.0**-22,
    )
    # One element has the norm of its own magnitude, so that norm and threshold are both 1e-6.
    millionth = {name: float(FLOATS[name].dtype.type(1e-6)) for name in WIDE}
    for name, value in millionth.items():
        add("at-one-millionth", "at-threshold eps-visible", "C3", [tensor(-value)], value, (name,))
    add("one-above-one-below", "per-tensor", "C1 C2", [tensor(3, 4), tensor(0.3, 0.4)], 1.0, ALL)
    add("groups-at-one", "per-tensor", "C1 C2", [tensor(0.6, -0.8), tensor([-0.8], [0.6])], 1.0)
    add("rank-norms-3-and-4", "per-tensor", "C1 C2", [tensor(-3, 0), tensor(0, 0, 4)], 1.0, ALL)
    add(
        "just-below-by-less-than-eps",
        "below eps-visible",
        "C3",
        [tensor(3, 4) * 2.0**-22],
        5.25 * 2.0**-22,
    )
    for name, order in (("1", 1), ("3", 3), ("half", 0.5), ("inf", "inf"), ("2-and-half", 2.5)):
        add(
            f"ord-{name}",
            "orders",
            "C1 C2",
            [tensor(3, -4, 1.5), tensor([0.5], [-2])],
            2.0,
            ALL,
            ord=order,
        )
        add(
            f"ord-{name}-below",
            "orders below",
            "C1 C3",
            [tensor(3, -4), tensor([0.5])],
            64.0,
            ord=order,
        )
    add("ord-1-at-threshold", "orders at-threshold", "C1 C3", [tensor(3, -4)], 7.0, ALL, ord=1)
    add(
        "ord-inf-at-threshold", "orders at-threshold", "C1 C3", [tensor(3, -4)], 4.0, ALL, ord="inf"
    )
    add("zero-gradient", "zero-gradient", "C3", [tensor(0, -0.0, 0)], 1.0, ALL)
    add("zero-gradient-zero-limit", "zero-gradient zero-limit", "C7", [tensor(0, 0, 0)], 0.0, ALL)
    add("zero-limit", "zero-limit", "C7", [tensor(3, -4), tensor([1.0])], 0.0, ALL)
    add("infinite-limit", "infinite-limit", "C7", [tensor(3, -4), tensor([1.0])], "inf", ALL)
    add(
        "infinite-limit-infinite-gradient",
        "infinite-limit infinite-gradient",
        "C7",
        [tensor(np.inf, -4), tensor([1.0])],
        "inf",
    )
    add("negative-limit", "negative-limit", "C8", [tensor(3, 4)], -1.0, ALL)
    add("nan-limit", "nan-limit", "C8", [tensor(3, 4)], "nan", ALL)
    at_the_edges(add, "C5 C11")
    for name, order in (("0", 0), ("negative", -1), ("nan", "nan")):
        add(f"ord-{name}", "bad-ord", "C8", [tensor(3, 4)], 1.0, ord=order)
    add(
        "infinite-gradient",
        "infinite-gradient",
        "C6",
        [tensor(-2, 0, np.inf), tensor(4, 0, 0)],
        6.0,
        ALL,
    )
    add(
        "minus-infinite-gradient",
        "infinite-gradient",
        "C6",
        [tensor(1, -2), tensor(-np.inf, 3)],
        6.0,
    )
    add(
        "infinite-gradient-ord-inf",
        "infinite-gradient orders",
        "C6",
        [tensor(1, np.inf)],
        6.0,
        ord="inf",
    )
    add(
        "infinite-gradient-zero-limit",
        "infinite-gradient zero-limit",
        "C6",
        [tensor(1, np.inf)],
        0.0,
    )
    add("nan-gradient", "nan-gradient", "C6", [tensor(1, -2), tensor(np.nan, 3)], 6.0, ALL)
    add("nan-gradient-below", "nan-gradient", "C6", [tensor(np.nan, 0), tensor([0.5])], 1e4)
    add(
        "square-overflow",
        "square-overflow",
        "C5",
        [tensor(3e20, 4e20)],
        1.0,
        ("float32", "bfloat16"),
    )
    add("huge-0-d", "square-overflow", "C2 C5", [np.array(3e38)], 1e-6, ("float32",))
    add("huge-0-d", "square-overflow", "C2 C5", [np.array(-1.5e308)], 1e-6, ("float64",))
    add("square-overflow", "square-overflow", "C5", [tensor(3e160, 4e160)], 1.0, ("float64",))
    add(
        "square-overflow-below",
        "square-overflow",
        "C3 C5",
        [tensor(3e20, 4e20)],
        1e21,
        ("float32",),
    )
    add(
        "square-overflow-below",
        "square-overflow",
        "C3 C5",
        [tensor(3e160, 4e160)],
        1e161,
        ("float64",),
    )
    add(
        "hundred-large", "square-overflow", "C5", [np.full(100, 1e20)], 1.0, ("float32", "bfloat16")
    )
    add("hundred-300", "square-overflow", "C5 C11", [np.full(100, 300.0)], 1.0, ("float16",))
    add(
        "hundred-300-below",
        "square-overflow below",
        "C3 C5 C11",
        [np.full(100, 300.0)],
        1e4,
        ("float16",),
    )
    add(
        "norm-beyond-float16", "square-overflow", "C5 C11", [np.full(4, 60000.0)], 1.0, ("float16",)
    )
    add(
        "square-underflow",
        "square-underflow",
        "C5",
        [tensor(3e-30, 4e-30)],
        1e-30,
        ("float32", "bfloat16"),
    )
    add(
        "square-underflow", "square-underflow", "C5", [tensor(3e-170, 4e-170)], 1e-170, ("float64",)
    )
    add("square-underflow", "square-underflow", "C5 C11", [np.full(100, 1e-4)], 1e-4, ("float16",))
    add(
        "large-and-one",
        "square-overflow",
        "C5",
        [tensor(2.0**127, 1.0)],
        2.0**100,
        ("float32", "bfloat16"),
    )
    add("large-and-one", "square-overflow", "C5", [tensor(2.0**1023, 1.0)], 2.0**900, ("float64",))
    add("norm-overflow", "norm-overflow", "C6", [np.full(16, 3e38)], 1.0, ("float32", "bfloat16"))
    add("norm-overflow", "norm-overflow", "C6", [np.full(16, 1.5e308)], 1.0, ("float64",))
    add(
        "coefficient-underflow",
        "coefficient-underflow square-overflow",
        "C2 C5",
        [tensor(2e38, 1e38)],
        1e-6,
        ("float32", "bfloat16"),
    )
    add(
        "coefficient-underflow",
        "coefficient-underflow square-overflow",
        "C2 C5",
        [tensor(1e308, 5e307)],
        1e-10,
        ("float64",),
    )
    add("tiny-threshold", "eps-visible", "C2", [tensor(3e-9, 4e-9)], 1e-9)
    add("micro-threshold", "eps-visible", "C2", [tensor(3e-6, -4e-6), tensor([1e-7])], 1e-6)
    add("milli-threshold", "eps-visible", "C2", [tensor(0.03, -0.04), tensor([0.001])], 0.01)
    add("absent", "absent", "C9", [None, tensor(3, -4), None, tensor([12.0])], 6.5, ALL)
    add("all-absent", "absent", "C9", [None, None], 1.0, ("float32",))
    add("empty-list", "empty", "C9", [], 1.0, ("float32",))
    add("empty-tensor", "empty", "C9 C10", [np.zeros((0, 3)), tensor(3, 4)], 1.0)
    add("only-empty-tensor", "empty", "C9 C10", [np.zeros(0)], 1.0)
    add(
        "empty-tensor-ord-inf",
        "empty orders",
        "C9 C10",
        [np.zeros(0), tensor(3, -4)],
        1.0,
        ord="inf",
    )
    add("empty-list-ord-inf", "empty orders", "C9", [], 1.0, ("float32",), ord="inf")
    add(
        "shapes",
        "shapes",
        "C10",
        [np.array(2.0), random.uniform(2, 1, 3), random.uniform(4)],
        1.5,
        ALL,
    )
    add("zero-dimensional", "shapes", "C10", [np.array(-3.0)], 1.0, ALL)
    add(
        "mixed-16-32-64",
        "mixed-dtypes",
        "C4 C10",
        [fixed([3.0, 1.0], "float16"), fixed([-2.0, 5.0], "float32"), fixed([0.1, 4.0], "float64")],
        2.0,
        ("float64",),
    )
    add(
        "mixed-16-32",
        "mixed-dtypes",
        "C4 C10",
        [fixed([300.0, 1.0], "float16"), fixed([[-2.0, 5.0]], "float32"), fixed([0.5], "bfloat16")],
        2.0,
        ("float32",),
    )
    add(
        "mixed-16-16",
        "mixed-dtypes",
        "C4 C10 C11",
        [fixed([300.0, 7.0], "float16"), fixed([2e20], "bfloat16")],
        2.0,
        ("float16",),
    )
    add(
        "subnormal-at-zero-cost",
        "subnormal below",
        "C3",
        [tensor(1e-45, -1e-40, 2.0)],
        3.0,
        ("float32",),
    )
    add("subnormal-16", "subnormal below", "C3", [tensor(6e-8, -3e-6, 2.0)], 3.0, ("float16",))
    add(
        "subnormal-only",
        "subnormal below square-underflow",
        "C3 C5",
        [tensor(1e-45, -1e-40)],
        1.0,
        ("float32",),
    )
    add("wide-range", "wide-range", "C1 C2", [random.spread(37), random.spread(5, 7)], 10.0)
    add(
        "wide-range-16",
        "wide-range",
        "C1 C2 C11",
        [random.spread(37, high=64.0), random.spread(5, 7, high=64.0)],
        10.0,
        ("float16", "bfloat16"),
    )
    add("long-ones", "long-sum", "C1 C2", [np.ones(40000)], 50.0, ("float32",))
    add(
        "long-uneven",
        "long-sum",
        "C1 C2 C11",
        [random.uniform(5000), random.uniform(70, 60)],
        1.0,
        ALL,
    )
    gap, uneven = tensor([3, -1], [0.5, 2]), tensor(-4, 0.25, 1)
    for name, pair in (
        ("tied", [gap, same_as(0)]),
        ("tied-apart", [gap, uneven, None, same_as(0)]),
    ):
        add(name, "tied", "C13", pair, 2.5, ALL)
    add("tied-between", "tied", "C3 C13", [tensor(3, 4), same_as(0)], 6.0, ALL)
    add("tied-below", "tied below", "C3 C13", [gap, uneven, same_as(1)], 16.0)
    add("tied-thrice", "tied", "C13", [uneven, gap, same_as(0), same_as(0)], 1.5)
    add("tied-800", "tied", "C13", [tensor(20, -20), same_as(0)], 1.0, ("float32",))
    add("tied-ord-1", "tied orders", "C1 C13", [uneven, same_as(0)], 2.0, ord=1)
    add("tied-ord-inf", "tied orders", "C1 C13", [uneven, same_as(0), gap], 2.0, ord="inf")
    add("equal-copies", "copies", "C13", [tensor(3, 4), tensor(3, 4)], 6.0, ALL)
    z = [np.array([3 + 4j, -1 - 2j, 0.5j]), np.array([[2 - 1j], [-0.25 + 0j]])]
    add("complex", "complex two-tensors", "C4 C12", z, 2.5, COMPLEX)
    add("complex-below", "complex below", "C3 C12", z, 16.0, COMPLEX)
    add(
        "complex-at-threshold", "complex at-threshold", "C3 C12", [np.array([3 + 4j])], 5.0, COMPLEX
    )
    for name, order in (("1", 1), ("3", 3), ("inf", "inf")):
        add(f"complex-ord-{name}", "complex orders", "C1 C12", z, 2.0, COMPLEX, ord=order)
    add("complex-imaginary", "complex", "C12", [np.array([3j, -4j]), np.array([0j])], 1.0, COMPLEX)
    signed = [np.array([complex(-0.0, -1), complex(2, -0.0), complex(-0.0, 3)])]
    add("complex-signed-zeros", "complex below", "C3 C12", signed, 9.0, COMPLEX)
    add(
        "complex-zero", "complex zero-gradient", "C3 C12", [np.zeros((2, 3), complex)], 1.0, COMPLEX
    )
    add("complex-zero-limit", "complex zero-limit", "C7 C12", z, 0.0, COMPLEX)
    add("complex-infinite-limit", "complex infinite-limit", "C7 C12", z, "inf", COMPLEX)
    for name, bad in (("nan", complex(1, np.nan)), ("infinite", complex(-np.inf, 2))):
        add(f"complex-{name}", f"complex {name}-gradient", "C6 C12", [np.array([bad, 3 - 4j])], 6.0,
            COMPLEX)  # fmt: skip
    add("complex-square-overflow", "complex square-overflow", "C5 C12", [np.array([3e20 - 4e20j, 12e20j])],
        1.0, ("complex64",))  # fmt: skip
    add("complex-square-underflow", "complex square-underflow", "C5 C12",
        [np.array([3e-30 + 4e-30j, -12e-30j])],
        1e-30, ("complex64",))  # fmt: skip
    mixed = [fixed([3 - 4j, 1j], "complex64"), fixed([2.0, -1.0], "float32"), tensor(0.5)]
    add("complex-and-real", "complex mixed-dtypes", "C4 C12", mixed, 2.0, WIDE)
    wide = [random.spread(9) + 1j * random.spread(9), random.spread(4, 3) * (0.5 - 1.5j)]
    add("complex-wide-range", "complex wide-range", "C1 C12", wide, 10.0, COMPLEX)
