"""The cases of ``prune.iterative``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from conformance.cases import ALL, WIDE, Cases, Stream, fixed, tensor


def shuffled(random: Stream, *shape: int) -> Any:
    """Return ±1 … ±count in random order: distinct magnitudes that every format holds."""
    count = int(np.prod(shape))
    signs = np.where(random.uniform(count) < 0, -1.0, 1.0)
    return (signs * (1.0 + np.array(random.permutation(count), dtype=np.float64))).reshape(shape)


def magnitudes(weights: Any, rounds: int) -> Any:
    """Return the magnitudes of the weights as the scores of every round."""
    return [[None if w is None else np.asarray(np.abs(w)) for w in weights] for _ in range(rounds)]


def flags_of(*masks: str) -> Any:
    """Return boolean masks from strings of 0 and 1; ``None`` from an empty one."""
    return [fixed([c == "1" for c in mask], "bool") if mask else None for mask in masks]


def cases(c: Cases) -> None:
    """Write the cases."""
    random = Stream(64)

    def add(
        name: str,
        flags: str,
        labels: str,
        weights: Any,
        amounts: Sequence[Any],
        scores: Any = None,
        dtypes: Any = WIDE,
        previous: Any = None,
        **p: Any,
    ) -> None:
        inputs = {
            "weights": weights,
            "scores": magnitudes(weights, len(amounts)) if scores is None else scores,
        }
        if previous is not None:
            inputs["previous"] = previous
        c.add(name, flags, labels, inputs, {"amounts": list(amounts), **p}, dtypes)

    # fmt: off
    two = [shuffled(random, 2, 5), shuffled(random, 7)]
    add("three-rounds", "basic rounding", "C1 C2 C4", two, (0.2, 0.5, 0.3), dtypes=ALL)
    add("three-rounds-global", "basic global rounding", "C1 C4 C5", two, (0.2, 0.5, 0.3), scope="global",
        dtypes=ALL)
    add("one-round", "basic", "C1", two, (0.4,), dtypes=ALL)
    add("one-round-global", "basic global", "C1 C5", two, (0.4,), scope="global")
    eight = [shuffled(random, 8)]
    add("halves-of-8", "same-amounts stuck", "C1 C2", eight, (0.5, 0.5, 0.5, 0.5, 0.5), dtypes=ALL)
    add("halves-of-6", "same-amounts rounding", "C1", [shuffled(random, 6)], (0.5, 0.5, 0.5))
    add("thirds-of-10", "same-amounts rounding", "C1", [shuffled(random, 2, 5)], (0.3, 0.3, 0.3, 0.3),
        dtypes=ALL)
    add("fifths-of-30", "same-amounts rounding", "C1", [shuffled(random, 5, 6)], (0.2,) * 6,
        dtypes=("float32", "bfloat16"))
    add("0-58-twice", "same-amounts rounding", "C1 C2", [shuffled(random, 10)], (0.58, 0.58), dtypes=ALL)
    add("quarters-of-10", "same-amounts rounding", "C1", [shuffled(random, 10)], (0.25, 0.25, 0.25))
    add("0-1-of-5", "same-amounts stuck rounding", "C1", [shuffled(random, 5)], (0.1, 0.1, 0.1, 0.1))
    add("0-35-of-10", "rounding", "C1", [shuffled(random, 10)], (0.35, 0.75, 0.5))
    add("0-575-of-100", "rounding", "C1", [shuffled(random, 100)], (0.575, 0.145, 0.29), dtypes=("float32",))
    add("0-8-of-5", "rounding", "C1", [shuffled(random, 5)], (0.8, 0.5), dtypes=ALL)
    add("growing", "rounding", "C1", [shuffled(random, 9), shuffled(random, 3, 3)], (0.1, 0.3, 0.6))
    add("growing-global", "rounding global", "C1 C5", [shuffled(random, 9), 0.9 * shuffled(random, 3, 3)],
        (0.1, 0.3, 0.6),
        scope="global")
    add("shrinking", "rounding", "C1", [shuffled(random, 11)], (0.6, 0.3, 0.1))
    add("0-999", "amount-edge rounding", "C1", [shuffled(random, 4)], (0.25, 0.999, 0.5))

    six = [tensor(1, -2, 3, -4, 5, -6)]
    turned = [[tensor(1, 2, 3, 4, 5, 6)], [tensor(6, 5, 4, 3, 2, 1)], [tensor(1, 9, 5, 2, 8, 3)]]
    add("scores-turned", "new-scores revived", "C2 C3 C4", six, (0.34, 0.25, 0.34), scores=turned, dtypes=ALL)
    first_high = [[tensor(1, 2, 3, 4)], [tensor(9, 8, 7, 6)], [tensor(9, 3, 1, 2)]]
    add("pruned-weight-scores-high", "new-scores revived", "C2 C3", [tensor(1, 2, -3, 4)], (0.25, 0.34, 0.5),
        scores=first_high, dtypes=ALL)
    many = [random.uniform(4, 5), random.uniform(9)]
    changing = [[random.uniform(4, 5, low=0.0), random.uniform(9, low=0.0)] for _ in range(4)]
    add("scores-change", "new-scores", "C2 C3", many, (0.3, 0.3, 0.2, 0.5), scores=changing)
    add("scores-change-global", "new-scores global", "C3 C5", many, (0.3, 0.3, 0.2, 0.5), scores=changing,
        scope="global")
    add("scores-not-magnitudes", "new-scores", "C3", [tensor(9, -8, 7, 0.5)], (0.25, 0.34),
        scores=[[tensor(0.5, 3, 0.25, 2)], [tensor(1, 4, 9, 5)]], dtypes=ALL)
    add("negative-scores", "signs new-scores", "C3 C5", [tensor(1, 2, 3, 4, 5)], (0.4, 0.34),
        scores=[[tensor(-3, 2, 0.5, -1, 7)], [tensor(5, -6, 2, 4, -8)]], dtypes=ALL)
    add("negative-scores-global", "signs global", "C5", [tensor(1, 2, 3), tensor(4, 5)], (0.4, 0.34),
        scores=[[tensor(-3, 2, 0.5), tensor(-1, 7)], [tensor(5, -6, 2), tensor(4, -8)]], scope="global")

    add("all-equal", "ties same-amounts", "C5", [np.where(random.uniform(8) < 0, -1.0, 1.0)],
        (0.5, 0.5, 0.5), dtypes=ALL)
    add("all-equal-global", "ties global", "C5", [tensor(1, -1, 1), tensor([-1, 1], [1, -1])], (0.3, 0.4, 0.5),
        scope="global")
    add("ties-in-a-round", "ties", "C5", [tensor(2, 1, -1, 1, 3)], (0.4, 0.34), dtypes=ALL)
    add("ties-not-at-the-boundary", "ties", "C5", [tensor(5, 1, 7, -1, 9, 3)], (1 / 3, 0.5))
    add("ties-then-other-scores", "ties new-scores", "C3 C5", [tensor(1, 1, 1, 1, 1, 1)], (0.5, 0.34),
        scores=[[tensor(2, 2, 2, 2, 2, 2)], [tensor(6, 1, 5, 2, 4, 3)]])
    add("signed-zeros", "ties signs", "C5", [tensor(0, -0.0, 0, 1)], (0.25, 0.34),
        scores=[[tensor(0, -0.0, -0.0, 1)]] * 2)

    other = [tensor(1, 2, 3, 4), tensor(0.1, -0.2, 0.3, -0.4)]
    add("other-scales", "scales", "C5", other, (0.25, 0.34), dtypes=ALL)
    add("other-scales-global", "scales global", "C5", other, (0.25, 0.34, 0.5), scope="global", dtypes=ALL)

    add("previous", "previous", "C1 C2", eight, (0.5, 0.34), previous=flags_of("10110111"), dtypes=ALL)
    add("previous-global", "previous global", "C2 C5", [tensor(9, -1, 2, 8), tensor(0.5, 7, -6, 4, 3)],
        (0.3, 0.4),
        scope="global", previous=flags_of("0111", "10110"), dtypes=ALL)
    add("previous-one-tensor", "previous", "C2", [tensor(9, -1, 2, 8), tensor(0.5, 7, -6)], (0.34, 0.5),
        previous=flags_of("0101", ""))
    add("previous-all", "previous amount-edge", "C2", [tensor(3, -2, 1)], (0.5, 0.5), previous=flags_of("000"))

    add("a-round-of-nothing", "amount-edge", "C1 C4", eight, (0.25, 0.0, 0.34), dtypes=ALL)
    add("everything-then-more", "amount-edge", "C1 C2", eight, (0.5, 1.0, 0.5), dtypes=ALL)
    add("everything-as-an-integer", "amount-edge", "C1 C6", eight, (0, 1, 0))
    add("everything-global", "amount-edge global", "C5", two, (0.3, 1.0), scope="global")
    add("no-rounds", "absent", "C6", eight, ())

    add("infinite", "nonfinite", "C5", [tensor(np.inf, 1, -np.inf, 2)], (0.5, 0.5), dtypes=ALL)
    add("nan-score", "nonfinite", "C5", [tensor(9, 1, 2, -3)], (0.25, 0.34),
        scores=[[tensor(np.nan, 1, 2, 3)]] * 2, dtypes=ALL)
    add("nan-in-the-second-round", "nonfinite new-scores", "C5", [tensor(9, 1, 2, -3)], (0.25, 0.34),
        scores=[[tensor(4, 1, 2, 3)], [tensor(4, 1, np.nan, 3)]], dtypes=ALL)
    add("nan-where-pruned", "nonfinite new-scores", "C2 C5", [tensor(9, 1, 2, -3)], (0.25, 0.34),
        scores=[[tensor(4, 1, 2, 3)], [tensor(4, np.nan, 2, 3)]], dtypes=ALL)
    add("nan-global", "nonfinite global", "C5", [tensor(9, 1), tensor(2, -3)], (0.25, 0.34),
        scores=[[tensor(4, 1), tensor(2, 3)], [tensor(4, 1), tensor(np.nan, 3)]], scope="global")

    for name, value in (("negative", -0.1), ("above-1", 1.5), ("nan", "nan"), ("inf", "inf")):
        add(f"amount-{name}", "bad-argument", "C6", eight, (0.25, value))
    add("first-amount-negative", "bad-argument", "C6", eight, (-0.25, 0.5))
    add("more-amounts", "bad-argument", "C6", eight, (0.25, 0.5), scores=magnitudes(eight, 1))
    add("more-scores", "bad-argument", "C6", eight, (0.25,), scores=magnitudes(eight, 2))
    add("other-length", "bad-argument", "C5", eight, (0.25, 0.5), scores=[magnitudes(eight, 1)[0], []])
    add("other-shape", "bad-argument", "C5", eight, (0.25,), scores=[[np.ones((2, 4))]])

    add("absent", "absent", "C5", [None, tensor(-1, 3, 2, 5), None], (0.25, 0.34), dtypes=ALL)
    add("absent-global", "absent global", "C5", [None, tensor(-1, 3, 2, 5), tensor(4, 0.5)], (0.34, 0.25),
        scope="global")
    add("absent-scores-in-a-round", "absent new-scores", "C3 C5", [tensor(-1, 3, 2, 4), tensor(5, 7, 6)],
        (0.34, 0.34),
        scores=[[tensor(1, 3, 2, 4), None], [None, tensor(5, 7, 6)]])
    shapes = [np.array(-0.5), shuffled(random, 2, 1, 3), np.zeros((0, 4)), shuffled(random, 2, 2)]
    add("shapes", "shapes", "C5", shapes, (0.4, 0.6), dtypes=ALL)
    add("shapes-global", "shapes global", "C5", shapes, (0.4, 0.6), scope="global", dtypes=ALL)
    # fmt: on
