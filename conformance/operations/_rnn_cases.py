"""The cases of ``layer.rnn``."""

from __future__ import annotations

from typing import Any

import numpy as np

from conformance.cases import ALL, Cases, Stream, fixed, tensor
from conformance.operations import _dtype_cases


def cases(c: Cases) -> None:
    """Write the cases."""
    random = Stream(132)

    def add(
        name: str,
        flags: str,
        labels: str,
        sizes: tuple[int, int, int, int],
        truncate: Any = None,
        dtypes: Any = ("float64", "float32"),
        **given: Any,
    ) -> None:
        examples, steps, into, width = sizes
        inputs = {
            "x": random.uniform(examples, steps, into, low=-1.5, high=1.5),
            "weight": random.uniform(into, width),
            "recurrent": random.uniform(width, width),
            "bias": random.uniform(width, low=-0.5, high=0.5),
            "h0": random.uniform(examples, width),
            "dy": random.uniform(examples, steps, width, low=-2.0, high=2.0),
        }
        c.add(name, flags, labels, inputs | given, {"truncate": truncate}, dtypes)

    def rotation(size: float) -> Any:
        return size * tensor([0.6, 0.8], [-0.8, 0.6])

    def last(examples: int, steps: int, width: int) -> Any:
        dy = np.zeros((examples, steps, width))
        dy[:, -1] = random.uniform(examples, width, low=-2.0, high=2.0)
        return dy

    add("basic", "basic", "C1 C2 C3", (2, 4, 3, 5), None, ALL)
    add("basic-narrow", "basic", "C1 C2 C3", (3, 5, 4, 2))
    add(
        "by-hand",
        "basic one-wide",
        "C1 C2 C3",
        (1, 2, 1, 1),
        x=np.full((1, 2, 1), 0.5),
        weight=tensor([np.log(3) - 0.2]),
        recurrent=tensor([-0.5]),
        bias=tensor(0.1),
        h0=tensor([0.0]),
        dy=np.array([[[2.0], [-3.0]]]),
    )
    add("longer", "basic", "C1 C2 C3", (2, 8, 2, 3))
    add("wide-state", "basic", "C1 C2 C3", (2, 3, 2, 6))
    add("one-step", "one-step", "C1 C2 C3", (3, 1, 2, 4), None, ALL)
    add("one-step-one-example", "one-step one-wide", "C1 C3", (1, 1, 3, 2))
    add("one-step-truncate", "one-step truncate", "C4 C5", (2, 1, 2, 3), 1)
    add("one-example", "one-wide", "C1 C2 C3", (1, 4, 2, 3))
    add("one-input", "one-wide", "C1 C2 C3", (2, 3, 1, 4))
    add("one-unit", "one-wide", "C1 C2 C3", (3, 4, 2, 1))
    add("square", "square", "C1 C2 C3", (2, 3, 4, 4))
    add("all-equal", "square", "C1 C2 C3", (3, 3, 3, 3))
    add("steps-like-units", "square", "C1 C2 C3", (2, 4, 3, 4))
    add("last-step", "through-time uneven-upstream", "C2 C3", (2, 4, 3, 2), dy=last(2, 4, 2))
    add("last-step-longer", "through-time", "C2 C3", (2, 7, 2, 3), dy=last(2, 7, 3))
    add("state-alone", "through-time", "C1 C2 C3", (2, 4, 2, 3), x=np.zeros((2, 4, 2)))
    add("no-recurrence", "through-time", "C1 C2 C3", (2, 4, 3, 2), recurrent=np.zeros((2, 2)))
    add("zero-start", "through-time", "C1 C3", (2, 3, 3, 2), h0=np.zeros((2, 2)))
    for k in (1, 2, 3, 4, 5):
        add(f"truncate-{k}", "truncate", "C4" if k < 5 else "C4 C5", (2, 5, 3, 2), k)
    add("truncate-beyond", "truncate", "C5", (2, 3, 2, 4), 100)
    add("truncate-even", "truncate", "C4", (3, 6, 2, 2), 2)
    add("truncate-uneven", "truncate", "C4", (2, 7, 2, 3), 3, ALL)
    add("truncate-last-step", "truncate through-time", "C4", (2, 5, 2, 3), 2, dy=last(2, 5, 3))
    add(
        "truncate-last-step-alone", "truncate through-time", "C4", (2, 5, 2, 3), 4, dy=last(2, 5, 3)
    )
    add("truncate-no-bias", "truncate no-bias", "C4 C7", (2, 4, 3, 2), 3, bias=None)
    add(
        "truncate-exploding",
        "truncate exploding",
        "C4 C6",
        (2, 12, 1, 2),
        6,
        recurrent=rotation(4.0),
        x=random.uniform(2, 12, 1) * 1e-12,
        bias=tensor(0, 0),
        h0=np.zeros((2, 2)),
        dy=last(2, 12, 2),
    )
    for name, k in (("zero", 0), ("negative", -2)):
        add(f"truncate-{name}", "truncate", "C5", (2, 3, 2, 3), k, ("float32",))
    # States stay next to 0, where tanh is the identity, so that U alone makes the gradient.
    add(
        "exploding",
        "exploding",
        "C2 C6",
        (1, 16, 2, 2),
        recurrent=rotation(4.0),
        x=random.uniform(1, 16, 2) * 1e-14,
        bias=tensor(0, 0),
        h0=tensor([1e-14, -2e-14]),
        dy=last(1, 16, 2),
    )
    add(
        "exploding-far",
        "exploding",
        "C2 C6",
        (1, 30, 1, 1),
        recurrent=tensor([8.0]),
        x=np.zeros((1, 30, 1)),
        bias=tensor(0.0),
        h0=tensor([0.0]),
        dy=last(1, 30, 1),
    )
    add(
        "exploding-shear",
        "exploding",
        "C2 C6",
        (2, 12, 1, 2),
        recurrent=tensor([1, 9], [0, 1]),
        x=random.uniform(2, 12, 1) * 1e-4,
        bias=tensor(0, 0),
        h0=np.zeros((2, 2)),
    )
    add(
        "exploding-bounded",
        "exploding saturated",
        "C1 C2 C6",
        (2, 8, 2, 3),
        recurrent=random.uniform(3, 3, low=-4.0, high=4.0),
    )
    add(
        "vanishing",
        "vanishing",
        "C2 C6",
        (1, 16, 2, 2),
        recurrent=rotation(0.25),
        dy=last(1, 16, 2),
    )
    add(
        "vanishing-far",
        "vanishing",
        "C2 C6",
        (1, 30, 1, 1),
        recurrent=tensor([0.125]),
        x=np.zeros((1, 30, 1)),
        bias=tensor(0.0),
        h0=tensor([0.5]),
        dy=last(1, 30, 1),
    )
    add(
        "vanishing-nilpotent",
        "vanishing",
        "C2 C6",
        (2, 5, 2, 3),
        recurrent=tensor([0, 0.5, 0.25], [0, 0, -0.75], [0, 0, 0]),
        dy=last(2, 5, 3),
    )
    add(
        "saturated",
        "saturated",
        "C1 C2",
        (2, 3, 2, 3),
        weight=random.uniform(2, 3) + tensor(30, -30, 25),
        x=random.uniform(2, 3, 2, low=0.5, high=1.5),
    )
    add("saturated-bias", "saturated", "C1 C2", (2, 3, 2, 3), bias=tensor(50, -50, 0.25))
    add("no-bias", "no-bias", "C1 C7", (2, 3, 4, 2), None, ALL, bias=None)
    add("no-bias-square", "no-bias square", "C1 C7", (2, 2, 3, 3), bias=None)
    uneven = random.uniform(2, 3, 2, low=-2.0, high=2.0) * 10.0 ** np.array(
        [[[3], [-3], [0]], [[0], [1], [-2]]]
    )
    add("uneven-upstream", "uneven-upstream", "C2 C3", (2, 3, 3, 2), dy=uneven)
    add("zero-upstream", "uneven-upstream", "C3", (2, 3, 2, 4), dy=np.zeros((2, 3, 4)))
    add("no-examples", "empty", "C8", (0, 3, 2, 4))
    add("no-examples-no-bias", "empty no-bias", "C7 C8", (0, 2, 3, 2), bias=None)
    add("no-examples-truncate", "empty truncate", "C8", (0, 3, 2, 2), 2)
    add("no-steps", "empty", "C8", (2, 0, 3, 2), None, ("float32",))
    x = random.uniform(2, 3, 2)
    x[1, 1, 0] = np.nan
    add("nan-example", "nonfinite", "C9", (2, 3, 2, 3), x=x)
    h0 = random.uniform(3, 2)
    h0[0, 1] = np.nan
    add("nan-start", "nonfinite", "C9", (3, 2, 3, 2), h0=h0)
    dy = random.uniform(2, 3, 3)
    dy[0, 1, 2] = np.nan
    add("nan-upstream", "nonfinite", "C9", (2, 3, 2, 3), dy=dy)
    only = ("float32",)
    add("input-mismatch", "bad-shape", "C10", (2, 3, 4, 2), None, only, weight=random.uniform(3, 2))
    add(
        "recurrent-not-square",
        "bad-shape",
        "C10",
        (2, 3, 2, 3),
        None,
        only,
        recurrent=random.uniform(3, 2),
    )
    add(
        "start-of-one-example",
        "bad-shape",
        "C10",
        (3, 2, 2, 4),
        None,
        only,
        h0=random.uniform(1, 4),
    )
    add("bias-mismatch", "bad-shape", "C10", (2, 3, 2, 3), None, only, bias=random.uniform(2))
    add(
        "upstream-of-the-last-step",
        "bad-shape",
        "C10",
        (2, 3, 2, 4),
        None,
        only,
        dy=random.uniform(2, 4),
    )
    add("without-time", "bad-shape", "C10", (2, 3, 2, 4), None, only, x=random.uniform(2, 2))
    ragged = {
        "x": random.uniform(2, 3, 2),
        "weight": random.uniform(2, 4),
        "recurrent": random.uniform(4, 4),
        "bias": random.uniform(4),
        "h0": random.uniform(2, 4),
        "dy": random.uniform(2, 3, 4, low=-2.0, high=2.0),
    }
    _dtype_cases.refused(c, "C11", ragged, {"truncate": None})
    start = fixed(ragged["h0"], "float64")
    add(
        "h0-wider-no-bias",
        "bad-dtype no-bias",
        "C7 C11",
        (2, 3, 2, 4),
        None,
        only,
        bias=None,
        h0=start,
    )
