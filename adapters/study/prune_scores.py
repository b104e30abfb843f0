"""Unstructured pruning by magnitude, by gradient and by Taylor score, step by step."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from adapters.study import momentum, prunes
from adapters.study.cases import case, number
from adapters.study.excerpts import excerpt
from adapters.study.model import Choice, Control, Fill, Stage, Stop, Table, Topic
from adapters.study.numbers import exact
from refimpl import masks as rules
from refimpl import pruning, scores

WEIGHTS = "prune.fraction/two-tensors-f32"
GRADIENTS = "train.step/masks-momentum-f32"
TIED = "prune.fraction/ties-in-the-middle-f32"
SCALES = "prune.fraction/other-scales-f32"


def tensors(kind: str) -> tuple[list[Any], list[Any]]:
    """Return the weights and gradients of a topic's fixture; magnitudes need no gradients."""
    if kind == "magnitude":
        return list(case(WEIGHTS).inputs["weights"]), []
    inputs = case(GRADIENTS).inputs
    return list(inputs["params"]), list(inputs["grads"][0][0])


def score(kind: str) -> list[Any]:
    """Return refimpl's scores."""
    weights, grads = tensors(kind)
    if kind == "magnitude":
        return list(scores.magnitude(weights))
    return list(scores.gradient(grads) if kind == "gradient" else scores.taylor(weights, grads))


def prune(kind: str, choice: Choice) -> tuple[list[Any], list[Any]]:
    """Return refimpl's masks and weights."""
    weights, _ = tensors(kind)
    rounding = choice.get("rounding", "half_even")
    options = {"amount": choice["amount"], "scope": choice["scope"], "rounding": rounding}
    masks, pruned = pruning.prune_fraction(weights, score(kind), **options)
    return list(masks), list(pruned)


def _score(kind: str, choice: Choice) -> Fill:
    weights, grads = tensors(kind)
    rows = []
    for t, s in enumerate(score(kind)):
        for at in np.ndindex(s.shape):
            slope = (exact(grads[t][at]),) if grads else ()
            rows.append((f"`w{t + 1}{list(at)}`", exact(weights[t][at]), *slope, exact(s[at])))
    first = {"w": rows[1][1], "g": rows[1][2], "s": rows[1][-1]}
    formula = {"magnitude": r"s = |«w»| = «s»", "gradient": r"s = |«g»| = «s»",
               "taylor": r"s = |«g» \cdot («w»)| = «s»"}[kind]  # fmt: skip
    used = {k: v for k, v in first.items() if f"«{k}»" in formula}
    heads = ("weight", "value", *(["gradient"] if grads else []), "score")
    says = "The formula shows the second weight. Signs do not matter."
    return Fill(formula, used, says, (Table("Scores", heads, tuple(rows)),))


def _count(kind: str, choice: Choice) -> Fill:
    amount, rounding = choice["amount"], choice["rounding"]
    sizes = [s.size for s in score(kind)]
    if choice["scope"] == "global":
        sizes = [sum(sizes)]
    n = sizes[0]
    k = {r: [_how_many(amount, size, r) for size in sizes] for r in prunes.ROUNDINGS}
    rows = [(f"`{r}`", *(f"{exact(amount * size)} → {many}" for size, many in zip(sizes, k[r], strict=True)))
            for r in prunes.ROUNDINGS]  # fmt: skip
    heads = ("rule", *(f"of {size}" for size in sizes))
    states = tuple("here" if r == rounding else "" for r in prunes.ROUNDINGS)
    differ = len({tuple(many) for many in k.values()}) > 1
    says = "Here the rules do not agree." if differ else "Here all rules agree. Try 25 % or 45 %."
    return Fill(
        r"k = \mathrm{round}(«a» \cdot «n») = \mathrm{round}(«p») = «k»",
        {"a": exact(amount), "n": str(n), "p": exact(amount * n), "k": str(k[rounding][0])},
        says,
        (Table("How many go, by each rounding rule", heads, tuple(rows), states),),
    )


def _how_many(amount: float, n: int, rounding: str) -> int:
    values = np.arange(n, dtype=np.float32)
    masks, _ = pruning.prune_fraction([values], [values], amount=amount, rounding=rounding)
    return n - int(np.sum(masks[0])) if masks[0] is not None else 0


def _cut(kind: str, choice: Choice) -> Fill:
    masks, _ = prune(kind, choice)
    found = score(kind)
    order = prunes.in_order(found, choice["scope"])
    rows = tuple((str(rank + 1), f"`w{t + 1}[{i}]`", exact(found[t].ravel()[i]),
                  "kept" if masks[t].ravel()[i] else "pruned") for rank, (t,
                      i) in enumerate(order))  # fmt: skip
    gone = sum(int((~m).sum()) for m in masks)
    total = sum(m.size for m in masks)
    return Fill(
        r"m_i = [\, \mathrm{rank}_i > k \,] \quad k = «k» \;\text{of}\; «n»",
        {"k": str(gone), "n": str(total)},
        f"{gone} of {total} weights go.",
        (
            prunes.sorted_scores("Scores, sorted", found, masks, choice["scope"]),
            Table("The ranking", ("rank", "weight (flat index)", "score", "mask"), rows,
                  tuple("cut" if row[3] == "pruned" else "kept" for row in rows)),
        ),
    )  # fmt: skip


def _ties(choice: Choice) -> Fill:
    chosen = case(TIED)
    w, s = list(chosen.inputs["weights"]), list(chosen.inputs["scores"])
    amount = number(chosen.params["amount"])
    rows = []
    for rule in prunes.TIES:
        masks, pruned = pruning.prune_fraction(w, s, amount=amount, ties=rule)
        m, p = np.asarray(masks[0]), np.asarray(pruned[0])
        rows.append((f"`{rule}`", ", ".join("kept" if keep else "pruned" for keep in m),
                     str(int((~m).sum())), ", ".join(exact(v) for v in p)))  # fmt: skip
    return Fill(
        r"k = \mathrm{round}(«a» \cdot 5) = 2",
        {"a": exact(amount)},
        "Scores 2, 1, 1, 1, 3: two go, but three are equally low.",
        (Table("Who goes", ("rule", "mask", "pruned", "weights after"), tuple(rows),
               tuple("here" if r == choice["ties"] else "" for r in prunes.TIES)),
         prunes.mask_grid("Under the chosen rule", w[0], np.asarray(
             pruning.prune_fraction(w, s, amount=amount, ties=choice["ties"])[0][0]))),
    )  # fmt: skip


def _mask(kind: str, choice: Choice) -> Fill:
    weights, _ = tensors(kind)
    masks, _ = prune(kind, choice)
    each, _ = prune(kind, {**choice, "scope": "tensor"})
    joint, _ = prune(kind, {**choice, "scope": "global"})
    whole = np.concatenate([m.ravel() for m in masks])
    chosen = case(SCALES)
    w, s = list(chosen.inputs["weights"]), list(chosen.inputs["scores"])
    apart = [np.asarray(m) for m in pruning.prune_fraction(w, s, amount=0.5, scope="tensor")[0]]
    one = [np.asarray(m) for m in pruning.prune_fraction(w, s, amount=0.5, scope="global")[0]]
    table = prunes.densities({"a cut each": apart, "one cut": one})
    extreme = Table(
        f"Two tensors of different scale (`{SCALES}`), half pruned",
        table.heads,
        table.rows,
        table.states,
    )
    return Fill(
        r"\mathrm{density} = \frac{«kept»}{«n»} = «d»",
        {"kept": str(int(whole.sum())), "n": str(whole.size), "d": exact(int(whole.sum()) / whole.size)},
        "A mask keeps the shape: every pruned weight is stored as +0.0, and nothing becomes smaller or "
            "faster by itself.",
        (*(prunes.mask_grid(f"Tensor `w{t + 1}`", w, m) for t, (w, m) in enumerate(zip(weights, masks,
            strict=True))),
         prunes.densities({"a cut for each tensor": each, "one cut for all": joint}), extreme),
    )  # fmt: skip


def _topic(kind: str, title: str, lead: str, formula: str, sources: tuple[str, ...]) -> Topic:
    source = WEIGHTS if kind == "magnitude" else GRADIENTS
    functions: dict[str, Any] = {
        "magnitude": scores.magnitude, "gradient": scores.gradient, "taylor": scores.taylor,
    }  # fmt: skip
    fn = functions[kind]
    line = {"magnitude": "return _each", "gradient": "return _each", "taylor": "abs(g * w)"}[kind]
    own = (
        Control("rounding", "rounding rule", tuple(Stop(r, r) for r in prunes.ROUNDINGS)),
        Control("ties", "rule for ties", tuple(Stop(r, r) for r in prunes.TIES)),
    )
    return Topic(kind, title, lead, (
        Stage("score", "Score every weight", SCORES[kind], formula, (excerpt(fn, line),), source,
            partial(_score, kind)),
        Stage("count", "How many go", """The amount times the number of weights is rarely a whole
            number. Half to even is the canonical rule: 2.5 becomes 2, 3.5 becomes 4. Others round
            down or up, or round the number that is kept.""",
            r"k = \mathrm{round}(a \cdot n)", (excerpt(rules._rounded, "product = cast", "return math.ceil"),
            excerpt(rules._rounded, "kept = cast", "return n -")), source, partial(_count, kind),
            ("amount", "rounding", "scope")),
        Stage("cut", "Sort and cut", """The lowest k scores go. With a cut for each tensor every
            tensor loses the same fraction; with one cut for all, a tensor of small scores loses
            more.""",
            r"m_i = [\, \mathrm{rank}_i > k \,]", (excerpt(rules.Quota.kept, "k = min", "return ~lowest"),),
                source,
            partial(_cut, kind), ("amount", "scope")),
        Stage("ties", "Ties", """Equal scores at the cut: someone must go first, or the whole group
            stays or goes. Canonical is the lowest index first, which always prunes exactly k.""",
            r"s_i = s_j", (excerpt(rules.lowest, "if ties in", "return smallest"),
            excerpt(rules.lowest, "# keep_all", "pivot =")), TIED, _ties, ("ties",)),
        Stage("mask", "The mask, and what is left of each layer", """True keeps the weight bit for
            bit, False puts +0.0 in its place. It is a selection and no product, so that no −0.0 and
            no NaN is left behind.""",
            r"\hat w_i = w_i \;\text{if}\; m_i \;\text{else}\; 0", (excerpt(rules.apply_mask,
                "return where_or_zero"),),
            source, partial(_mask, kind), ("amount", "scope")),
        momentum.stage(),
    ), (prunes.amount_control(0.5, "the fixture's"), prunes.scope_control(), *own), sources)  # fmt: skip


SCORES = {
    "magnitude": "Small weights matter least: the score is the magnitude. No data is needed.",
    "gradient": """The score is the magnitude of the gradient. Mind what that means: a small
            gradient says that the loss hardly depends on small changes of the weight here, not that
            the weight is unimportant. A large weight at its optimum has gradient zero.""",
    "taylor": """Setting a weight to zero changes it by $-w$, and the loss, to first order, by $-g
            \\cdot w$. The score is the size of that change: it needs a large weight and a steep
            loss.""",
}


def magnitude() -> Topic:
    """Return the page on magnitude pruning."""
    return _topic("magnitude", "Magnitude pruning", """Score every weight by its size, sort, cut off
            the smallest, and keep a mask that holds them at zero.""", r"s_i = |w_i|",
        ("S. Han et al.: Learning both weights and connections for efficient neural networks. NIPS 2015",
            ))  # fmt: skip


def gradient() -> Topic:
    """Return the page on gradient pruning."""
    return _topic("gradient", "Gradient pruning", """Score every weight by the size of its gradient,
            sort, cut, mask. The choice is made from one batch's gradient: another batch may choose
            otherwise.""", r"s_i = |g_i|", ())  # fmt: skip


def taylor() -> Topic:
    """Return the page on Taylor pruning."""
    return _topic("taylor", "Taylor pruning", """Score every weight by how much the loss would
            change without it, to first order. Then sort, cut and mask.""", r"s_i = |g_i \cdot w_i|",
        ("P. Molchanov et al.: Pruning convolutional neural networks for resource efficient inference. ICLR "
            "2017",))  # fmt: skip
