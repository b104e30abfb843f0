"""How precise an implementation is, operation by operation, and by which kind of summation that could be.

Measured are the answers to cases with a PRECISION flag and to large ones, in float64 and float32, against the
oracle's exact numbers. Let t be the number of roundings that the operation allows an output: its tolerance,
counted for the worst legitimate order of evaluation (N additions, each rounded, give N·u in any order; see
N. Higham, *Accuracy and Stability of Numerical Algorithms*, section 4.2). An output's class by its distance d
from the exact number, in ULP:

====================  ==========================================================================================
correctly rounded     d <= 1/2 (0 from the exact number, rounded): nothing was lost
few ULP               d <= t and t < 16: there is no long sum to speak of
pairwise-like         d <= 2 + ceil(log2 t): as of pairwise or blocked sums, or of a wider accumulator, whose
                      error grows as log2(N)·u
sequential-like       d <= t: as of one running sum, whose error may grow as N·u
worse                 d > t: no order of evaluation gives that, short of an overflow or a narrower accumulator
====================  ==========================================================================================

An operation has the worst class of its outputs. A class says what the error is like, not how the code is
written. Frozen tensors are too short to tell sums apart, so a full run also asks :data:`PROBES`: sums of a
million numbers from a seed (SplitMix64, as :class:`conformance.cases.Stream`), whose exact sums are those of
integers: squares of float32 numbers are exact in float64, and ``math.fsum`` rounds their sum once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from conformance.cases import Case, Stream
from conformance.formats import Tensor, name_of, ulp
from conformance.operation import Operation, sizes
from conformance.operations import load

CLASSES = ("correctly rounded", "few ULP", "pairwise-like", "sequential-like", "worse")
"""From the best to the worst."""
SHORT = 16
LARGE = 1000
"""Elements from which a case counts without a flag."""
COUNT = 1_000_000
FORMATS = frozenset({"float64", "float32"})


@dataclass(frozen=True)
class Measure:
    """The worst distance from the exact number that was seen."""

    ulps: float
    roundings: int
    """t: how many roundings the operation allows that output."""
    where: str
    """The case or the probe."""

    @property
    def name(self) -> str:
        """The class, one of :data:`CLASSES`."""
        return classify(self.ulps, self.roundings)

    def as_json(self) -> dict[str, Any]:
        """Return the measure as JSON values."""
        worst = self.ulps if math.isfinite(self.ulps) else repr(self.ulps)
        return {"class": self.name, "ulp": worst, "roundings": self.roundings, "where": self.where}


def classify(ulps: float, roundings: int) -> str:
    """Return the class of a distance in ULP where so many roundings are allowed."""
    if ulps <= 0.5:
        return "correctly rounded"
    if not ulps <= roundings:
        return "worse"
    if roundings < SHORT:
        return "few ULP"
    pairwise = 2 + math.ceil(math.log2(roundings))
    return "pairwise-like" if ulps <= pairwise else "sequential-like"


def counts(operation: Operation, case: Case) -> bool:
    """Say whether a case says something of precision: by a flag of its own, or by its size."""
    kinds = {flag.kind for name in case.flags if (flag := operation.flags.get(name))}
    return "PRECISION" in kinds or sizes(case.inputs) >= LARGE


def worst(measures: Iterable[Measure]) -> Measure | None:
    """Return the measure of the worst class, and of these the one that is furthest off."""
    return max(measures, key=lambda m: (CLASSES.index(m.name), m.ulps), default=None)


# --- sums of a million numbers ----------------------------------------------------------------


@dataclass(frozen=True)
class Probe:
    """A question about one long sum: an output that is one number, and its exact value."""

    operation: str
    output: str
    words: str
    inputs: Callable[[], dict[str, Any]]
    params: dict[str, Any]
    exact: Callable[[dict[str, Any]], float]
    """Within 2^-52 of the exact value, which is nothing in ULP of float32."""

    def case(self) -> Case:
        """Return the question; it is not frozen, and no verdict comes of it."""
        name = f"precision-{COUNT}-f32"
        return Case(self.operation, name, (), (), self.inputs(), self.params)

    def measure(self, case: Case, outputs: dict[str, Any]) -> Measure | None:
        """Return how far an answer is off; None if it is not of the kind that was asked for."""
        got = outputs.get(self.output)
        if not isinstance(got, np.ndarray) or got.shape != () or name_of(got.dtype) not in FORMATS:
            return None
        operation = load(self.operation)
        settings = {p.name: p.default for p in operation.params} | self.params
        settings |= {dial.name: dial.default for dial in operation.all_dials}
        allowed = operation.tolerance(case.inputs, settings)[self.output]
        wanted = self.exact(case.inputs)
        # A library may answer in float64: it was asked for a sum of float32 numbers all the same.
        off = abs(float(got) - wanted) / float(ulp(wanted, "float32"))
        return Measure(off if not math.isnan(off) else math.inf, allowed, self.words)


def _million(seed: int) -> Tensor:
    return Stream(seed).uniform(COUNT).astype(np.float32)


def _norm(inputs: dict[str, Any]) -> float:
    return math.sqrt(math.fsum((inputs["grads"][0].astype(np.float64) ** 2).tolist()))


def _magnitudes(inputs: dict[str, Any]) -> float:
    return math.fsum(np.abs(inputs["weights"][0].astype(np.float64)).tolist())


PROBES = (
    Probe("clip.global_norm", "total_norm", f"the float32 norm of {COUNT:,} numbers",
          lambda: {"grads": [_million(1)]}, {"max_norm": 1e6, "ord": 2}, _norm),
    Probe("penalty.l1", "value", f"the float32 sum of {COUNT:,} magnitudes",
          lambda: {"weights": [_million(2)]}, {"strength": 1.0}, _magnitudes),
)  # fmt: skip
