"""``prune.iterative``: prune in rounds, each a fraction of what the rounds before have left."""

from __future__ import annotations

from typing import Any

import numpy as np

from conformance.cases import Case
from conformance.exact import Reject
from conformance.operation import Flag, Mistake, Operation, Param, Setting, map_tensors
from conformance.operations._prune_iterative_cases import cases
from conformance.oracle import pruning

Settings = dict[str, Any]


def one_round(
    inputs: dict[str, Any], settings: Settings, step: int, previous: Any
) -> tuple[dict[str, Any], Settings]:
    """Return inputs and settings of ``prune.fraction`` for one round."""
    given = {"weights": inputs["weights"], "scores": inputs["scores"][step], "previous": previous}
    return given, settings | {"amount": settings["amounts"][step], "count": None}


def oracle(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """m_r: in round r the round(a_r·n_r) lowest of the n_r weights that m_(r-1) left go."""
    check(inputs, settings)
    previous, rounds = inputs.get("previous"), []
    for step in range(len(settings["amounts"])):
        previous = pruning.fraction_masks(*one_round(inputs, settings, step, previous))
        rounds.append(previous)
    return {"masks": rounds}


def check(inputs: dict[str, Any], settings: Settings) -> None:
    """Refuse amounts and scores of different numbers of rounds."""
    if len(settings["amounts"]) != len(inputs["scores"]):
        raise Reject("amounts and scores must have one entry per round")


def tolerance(inputs: dict[str, Any], settings: Settings) -> dict[str, int]:
    """Return 0: masks are bits."""
    return {"masks": 0}


def representative(case: Case, setting: Setting, outputs: dict[str, Any]) -> dict[str, Any]:
    """Under ties=unspecified, return the canonical masks if each round only exchanges equals.

    Each round is judged after the masks that the implementation itself had before it.
    """
    if setting.get("ties") != "unspecified":
        return outputs
    defaults = {p.name: p.default for p in PARAMS} | {d.name: d.default for d in DIALS}
    settings: Settings = {**defaults, **case.params, **setting}
    previous = case.inputs.get("previous")
    for step, given in enumerate(outputs["masks"]):
        inputs, chosen = one_round(case.inputs, settings, step, previous)
        wanted = pruning.fraction_masks(inputs, chosen)
        if not pruning.exchanges_equals(inputs, given, wanted, chosen):
            return outputs
        previous = given
    return outputs | oracle(case.inputs, settings)


def _with(**changes: Any) -> Any:
    """Return a mistake that sets parameters or dials to something else."""

    def mistake(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
        oracle(inputs, settings)
        return oracle(inputs, settings | changes)

    return mistake


def afresh(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """Every round starts from the first mask: what it does not choose comes back."""
    oracle(inputs, settings)
    before = inputs.get("previous")
    free = settings | {"nan_score": "highest"}
    rounds = range(len(settings["amounts"]))
    return {"masks": [pruning.fraction_masks(*one_round(inputs, free, r, before)) for r in rounds]}


def of_all_weights(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """The amount counts the weights pruned before, and is pruned anew from those that are left."""
    result = oracle(inputs, settings)
    previous, rounds = inputs.get("previous"), []
    for step in range(len(settings["amounts"])):
        given, chosen = one_round(inputs, settings, step, previous)
        masks: pruning.Masks = [None if m is None else m.copy() for m in pruning.before(given)]
        for group in pruning.groups(given, chosen):
            of_all = pruning.rounded_count(chosen["amount"], group.size, chosen)
            k = min(of_all, len(group.entries))
            for entry in pruning.chosen(group, k, chosen):
                masks[entry.tensor].ravel()[entry.index] = False
        previous = masks
        rounds.append(masks)
    return result | {"masks": rounds}


def shares_multiplied(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """The kept shares are multiplied and rounded once, so rounds prune what they should not."""
    oracle(inputs, settings)
    kept, targets = 1.0, []
    for amount in settings["amounts"]:
        kept *= 1.0 - float(amount)
        targets.append(1.0 - kept)
    return oracle(inputs, settings | {"amounts": targets, "iterate": "total"})


def _scores_of(step: int) -> Any:
    """Return a mistake that uses the scores of one round in all of them."""

    def mistake(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
        oracle(inputs, settings)
        scores = [inputs["scores"][step] for _ in inputs["scores"]]
        return oracle(inputs | {"scores": scores}, settings | {"nan_score": "highest"})

    return mistake


def _rounds(change: Any) -> Any:
    """Return a mistake that changes the list of masks."""

    def mistake(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
        rounds = oracle(inputs, settings)["masks"]
        return {"masks": change(rounds, pruning.before(inputs)) if rounds else rounds}

    return mistake


def _only_new(rounds: list[Any], first: Any) -> list[Any]:
    return [
        [None if m is None else m | ~b for m, b in zip(masks, before, strict=True)]
        for masks, before in zip(rounds, [first, *rounds[:-1]], strict=True)
    ]


def _inverted(rounds: list[Any], first: Any) -> list[Any]:
    return map_tensors(np.logical_not, rounds)


MISTAKES = (
    Mistake(
        "rounds start afresh",
        "each round forgets the ones before, and weights come back",
        afresh,
        ("neuralmagic/sparseml#589",),
    ),
    Mistake("amounts of all weights", "each round takes its share of all weights", of_all_weights),
    Mistake("amounts as totals", "each amount is where the round should end", _with(iterate="total")),
    Mistake("shares multiplied", "the kept shares are multiplied, not the counts", shares_multiplied),
    Mistake("first scores", "every round ranks by the scores of the first", _scores_of(0)),
    Mistake("last scores", "every round ranks by the scores of the last", _scores_of(-1)),
    Mistake(
        "masks before the round", "masks are those before each round",
        _rounds(lambda rounds, first: [first, *rounds[:-1]]),
    ),
    Mistake(
        "one round too few", "the last round is left out",
        _rounds(lambda rounds, first: [*rounds[:-1], rounds[-2] if len(rounds) > 1 else first]),
        ("intel/neural-compressor#1211",),
    ),
    Mistake("last mask in all", "every round shows the last masks",
            _rounds(lambda rounds, first: [rounds[-1]] * len(rounds))),
    Mistake("only what is new", "a mask shows only what its own round pruned", _rounds(_only_new)),
    Mistake("mask inverted", "1 means pruned", _rounds(_inverted)),
    Mistake("never shared", "global scope prunes each tensor by itself", _with(scope="tensor")),
    Mistake("always shared", "tensor scope ranks all together", _with(scope="global")),
)  # fmt: skip

CONSTRAINTS = {
    "C1": "A round prunes exactly round(amount·n) weights, halves to even, of the n that are left before it.",
    "C2": "What a round, or previous, has pruned stays pruned and does not compete in later rounds.",
    "C3": "Each round has its own amount and its own scores, which need not resemble those before.",
    "C4": "Masks are cumulative: those of round r show all that is pruned up to and including round r.",
    "C5": "Scope, ties, NaN and absent entries are those of prune.fraction, in every round.",
    "C6": "There are as many amounts as scores, each in [0, 1]; no rounds give no masks.",
}

FLAGS = {
    "basic": Flag("BASIC", "Several rounds on distinct scores."),
    "rounding": Flag("DIALECT", "Rounds whose share of what is left is not an integer."),
    "stuck": Flag("EDGE_CASE", "Half of one weight: rounding to even never prunes it."),
    "new-scores": Flag("BASIC", "Scores that change from round to round."),
    "revived": Flag(
        "KNOWN_BUG",
        "A weight that is pruned early has a high score later.",
        ("neuralmagic/sparseml#589",),
    ),
    "same-amounts": Flag(
        "KNOWN_BUG",
        "The same amount again: half of the half, not half of the whole.",
        ("neuralmagic/sparseml#589", "intel/neural-compressor#1211"),
    ),
    "global": Flag("BASIC", "All tensors share the amounts."),
    "ties": Flag("EDGE_CASE", "Equal scores at the boundary of a round."),
    "previous": Flag("EDGE_CASE", "Some weights are pruned before the first round."),
    "amount-edge": Flag("EDGE_CASE", "A round that prunes nothing, or everything."),
    "nonfinite": Flag("EDGE_CASE", "NaN and infinite scores, in the first round or later."),
    "signs": Flag("EDGE_CASE", "Negative scores."),
    "scales": Flag("DIALECT", "Tensors of different scales under one amount."),
    "bad-argument": Flag("EDGE_CASE", "Amounts or lists that are refused."),
    "absent": Flag("EDGE_CASE", "Absent weights or scores; no rounds."),
    "shapes": Flag("EDGE_CASE", "0-d, empty and many-dimensional tensors."),
}

PARAMS = (
    Param("amounts", "a fraction in [0, 1] per round, of what is left", required=True),
    Param("scope", "tensor: of each tensor by itself; global: of all together", default="tensor"),
)
DIALS = tuple(dial for dial in pruning.FRACTION_DIALS if dial.name != "masking")

OPERATION = Operation(
    id="prune.iterative",
    summary="Prune in rounds, each a fraction of what the rounds before have left.",
    formula="m_r = m_(r-1), less the round(a_r·n_r) lowest scores of the n_r weights it left",
    sources=(
        "S. Han, J. Pool, J. Tran, W. Dally: Learning both weights and connections for efficient neural"
        " networks. NeurIPS 2015",
        "J. Frankle, M. Carbin: The lottery ticket hypothesis. ICLR 2019",
    ),
    constraints=CONSTRAINTS,
    inputs={
        "weights": "list of float tensors of any shapes; null is an absent one",
        "scores": "a list of rounds, each a list with a score per weight, of the same shapes; null leaves a"
        " tensor as it is",
        "previous": "optional: boolean masks of the same shapes, False where pruned already",
    },
    outputs={
        "masks": "a list of rounds, each the list of masks after it: boolean, True where kept"
    },
    params=PARAMS,
    dials=DIALS,
    oracle=oracle,
    tolerance=tolerance,
    tolerance_why="Masks are bits.",
    flags=FLAGS,
    cases=cases,
    mistakes=MISTAKES,
    representative=representative,
    dialects={
        "torch": {"ties": "unspecified", "nan_score": "highest", "score_sign": "ignored"},
    },
)
