"""``dist.global_norm``: the global-norm clip of a model that is spread over ranks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from conformance.cases import ALL, WIDE, Cases, Stream, fixed, tensor
from conformance.exact import Real, Reject, full, real
from conformance.operation import Flag, Mistake, Operation, Value
from conformance.operations import clip_global_norm
from conformance.oracle import clipping

Settings = dict[str, Any]
Ranks = list[list[dict[str, Any]]]

DIALS = tuple(d for d in clipping.DIALS if d.name in ("eps_at", "eps", "nonfinite", "norm"))
OTHERS = {d.name: d.default for d in clipping.DIALS if d not in DIALS}


def oracle(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """n over every logical parameter once; every shard and copy ← itself · min(1, c/n)."""
    settings = settings | OTHERS
    clipping.check(settings)
    check(inputs["ranks"])
    total = clipping.norm(counted(inputs["ranks"]), settings)
    return _clipped(inputs["ranks"], lambda _: total.exact.item(), settings, total)


def check(ranks: Ranks) -> None:
    """Refuse a layout that is not that of one model."""
    shards = [(i, shard) for i, rank in enumerate(ranks) for shard in rank]
    for name in {shard["name"] for _, shard in shards}:
        same = [(i, shard) for i, shard in shards if shard["name"] == name]
        placements = {shard["placement"] for _, shard in same}
        if len(placements) > 1:
            raise Reject(f"{name} has several placements")
        placement = placements.pop()
        if placement not in ("sharded", "replicated", "tied"):
            raise Reject(f"{name} has the unknown placement {placement}")
        if placement == "replicated" and len({i for i, _ in same}) < len(same):
            raise Reject(f"two replicas of {name} on one rank")
        copies = [shard["tensor"] for _, shard in same if shard["tensor"] is not None]
        if placement != "sharded" and len({(t.shape, t.dtype.name) for t in copies}) > 1:
            raise Reject(f"copies of {name} that differ in shape or dtype")


def counted(ranks: Ranks, repeated: tuple[str, ...] = ("sharded",)) -> list[Any]:
    """Return the tensors that count: placements that are ``repeated`` each time, others once a name."""
    seen: set[str] = set()
    result = []
    for shard in (shard for rank in ranks for shard in rank):
        if shard["tensor"] is None or shard["name"] in seen:
            continue
        if shard["placement"] not in repeated:
            seen.add(shard["name"])
        result.append(shard["tensor"])
    return result


def _clipped(
    ranks: Ranks, norm_of: Callable[[int], Real], settings: Settings, total: Value
) -> dict[str, Any]:
    shards = [
        [
            None if s["tensor"] is None else clipping.apply(s["tensor"], norm_of(i), settings)
            for s in rank
        ]
        for i, rank in enumerate(ranks)
    ]
    return {"shards": shards, "total_norm": total}


def tolerance(inputs: dict[str, Any], settings: Settings) -> dict[str, int]:
    """As for clip.global_norm, over the tensors that count and in any order over the ranks."""
    settings = settings | OTHERS
    present = counted(inputs["ranks"])
    return {
        "shards": clipping.grad_ulps(present, settings),
        "total_norm": clipping.norm_ulps(present, settings),
    }


def _with_total(total_of: Callable[[Ranks, Settings], Real]) -> Any:
    def mistaken(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
        right, settings = oracle(inputs, settings), settings | OTHERS
        n = total_of(inputs["ranks"], settings)
        total = Value(full((), n), right["total_norm"].dtype)
        return _clipped(inputs["ranks"], lambda _: n, settings, total)

    return mistaken


def _rank_norms(ranks: Ranks, settings: Settings) -> list[Real]:
    return [clipping.norm(counted([rank]), settings).exact.item() for rank in ranks]


def _counting(*repeated: str) -> Callable[[Ranks, Settings], Real]:
    return lambda ranks, s: clipping.norm(counted(ranks, ("sharded", *repeated)), s).exact.item()


def _only_sharded(ranks: Ranks, settings: Settings) -> Real:
    sharded = [[s for s in rank if s["placement"] == "sharded"] for rank in ranks]
    return clipping.norm(counted(sharded), settings).exact.item()


def _inf_is_one(ranks: Ranks, settings: Settings) -> Real:
    if clipping.number(settings["ord"]) == np.inf:
        return real(1)
    return clipping.norm(counted(ranks), settings).exact.item()


def _local(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """Each rank clips by its own norm; the first rank's is reported."""
    right, settings = oracle(inputs, settings), settings | OTHERS
    norms = _rank_norms(inputs["ranks"], settings)
    first = norms[0] if norms else real(0)
    total = Value(full((), first), right["total_norm"].dtype)
    return _clipped(inputs["ranks"], lambda i: norms[i], settings, total)


def _first_copy_only(inputs: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """Only the first copy of a replicated parameter is clipped, so the copies drift apart."""
    right = oracle(inputs, settings)
    seen: set[str] = set()
    for i, rank in enumerate(inputs["ranks"]):
        for j, shard in enumerate(rank):
            if shard["name"] in seen and shard["placement"] != "sharded":
                right["shards"][i][j] = shard["tensor"]
            seen.add(shard["name"])
    return right


MISTAKES = (
    Mistake("local norm", "each rank clips by the norm of what it holds", _local,
            ("pytorch/pytorch#170862", "PaddlePaddle/Paddle#35893", "PaddlePaddle/Paddle#60127")),
    Mistake("largest rank norm", "the total is the maximum over the ranks",
            _with_total(lambda r, s: max(_rank_norms(r, s), default=real(0))),
        ("facebookresearch/fairscale#167",)),
    Mistake("sum of rank norms", "the ranks' norms are added, not their powers",
            _with_total(lambda r, s: sum(_rank_norms(r, s), real(0)))),
    Mistake("replicas counted each", "a replicated parameter counts once a rank",
        _with_total(_counting("replicated")),
            ("pytorch/pytorch#88955", "mindspore-ai/hyper-parallel#526", "apache/mxnet#12859")),
    Mistake("tied counted twice", "a tied weight counts at each place", _with_total(_counting("tied")),
            ("NVIDIA/Megatron-LM#7227",)),
    Mistake("replicas forgotten", "only sharded parameters count", _with_total(_only_sharded)),
    Mistake("infinity norm is one", "the p-th root of infinite p is taken", _with_total(_inf_is_one),
            ("meta-pytorch/torchrec#3199",)),
    Mistake("first copy clipped", "copies of a parameter drift apart", _first_copy_only,
            ("deepspeedai/DeepSpeed#1801",)),
)  # fmt: skip

CONSTRAINTS = {
    "C1": "The norm is that of the whole model: (Σ|g|^p)^(1/p) over every logical parameter, each once.",
    "C2": "Of a sharded parameter every shard counts, wherever it lies and however unequal the shards are.",
    "C3": "Of a replicated or tied parameter one copy counts, however many ranks or places hold it.",
    "C4": "Every shard and every copy on every rank is multiplied by the same min(1, max_norm / norm): copies"
          " stay equal, bit for bit.",
    "C5": "At or below max_norm every output is bit for bit the input.",
    "C6": "total_norm is the norm before clipping, float64 if any shard is float64, else float32.",
    "C7": "A NaN or infinite element on any rank makes every output of every rank NaN.",
    "C8": "An absent shard stays absent and does not count; a rank may hold nothing.",
    "C9": "An unknown placement, a name of several placements, two replicas on one rank, copies of different"
          " shape or dtype, and a max_norm or ord without a meaning are refused.",
}  # fmt: skip

FLAGS = {
    "sharded": Flag("BASIC", "Shards on several ranks.", ("pytorch/pytorch#170862", "pytorch/torchtitan#766")),
    "uneven": Flag("EDGE_CASE", "Shards of different sizes, several on a rank, or none."),
    "rank-norms": Flag("KNOWN_BUG", "Ranks of different norms.", ("facebookresearch/fairscale#167",)),
    "replicated": Flag("KNOWN_BUG", "Copies on several ranks.",
                       ("pytorch/pytorch#88955", "mindspore-ai/hyper-parallel#526",
        "deepspeedai/DeepSpeed#1801")),
    "tied": Flag("KNOWN_BUG", "One weight at two places.", ("NVIDIA/Megatron-LM#7227",)),
    "mixed": Flag("BASIC", "Sharded, replicated and tied parameters together.",
                  ("mindspore-ai/hyper-parallel#760",)),
    "model-parallel": Flag("KNOWN_BUG", "No rank alone exceeds the threshold.",
                           ("PaddlePaddle/Paddle#35893", "PaddlePaddle/Paddle#36555",
        "PaddlePaddle/Paddle#60127")),
    "orders": Flag("KNOWN_BUG", "p-norms other than 2.", ("meta-pytorch/torchrec#3199",)),
    "at-threshold": Flag("EDGE_CASE", "The norm equals the threshold, or is below it."),
    "nonfinite": Flag("EDGE_CASE", "NaN or infinity on one rank."),
    "square-overflow": Flag("OVERFLOW", "Squares overflow although the norm does not."),
    "eps-visible": Flag("DIALECT", "Norm and threshold near 1e-6, where an epsilon shows."),
    "absent": Flag("EDGE_CASE", "Absent shards, ranks that hold nothing."),
    "bad-layout": Flag("EDGE_CASE", "Layouts that are not those of one model."),
    "bad-limit": Flag("EDGE_CASE", "A threshold or an order without a meaning."),
    "mixed-dtypes": Flag("EDGE_CASE", "Several dtypes."),
    "wide-range": Flag("PRECISION", "Magnitudes from 1e-3 to 1e3, on four ranks."),
}  # fmt: skip


def part(name: str, values: Any, placement: str = "sharded") -> dict[str, Any]:
    """Return one shard in the notation of the contract."""
    return {"name": name, "tensor": values, "placement": placement}


def cases(c: Cases) -> None:
    """Write the cases."""
    random = Stream(74)

    def add(
        name: str,
        flags: str,
        labels: str,
        ranks: Any,
        max_norm: Any,
        dtypes: Any = WIDE,
        **params: Any,
    ) -> None:
        c.add(name, flags, labels, {"ranks": ranks}, {"max_norm": max_norm, **params}, dtypes)

    # fmt: off
    def copies(values: Any, count: int, placement: str = "replicated", name: str = "norm") -> Any:
        return [[part(name, values.copy(), placement)] for _ in range(count)]

    def beside(*layouts: Any) -> Any:
        return [[shard for shards in rank for shard in shards] for rank in zip(*layouts, strict=True)]

    split = [[part("w", tensor([3, -1], [0.5, 2]))], [part("w", tensor([-4, 0.25]))]]
    add("two-ranks", "sharded", "C1 C2 C4 C6", split, 2.5, ALL)
    add("two-ranks-swapped", "sharded", "C1 C2", split[::-1], 2.5, ALL)
    add("one-rank", "sharded", "C1", [[part("w", tensor(3, -4)), part("b", tensor([12.0]))]], 6.5, ALL)
    add("rank-norms-3-and-4", "rank-norms sharded", "C1 C2",
        [[part("w", tensor(-3, 0))], [part("w", tensor(0, 0,
        4))]], 1.0, ALL)
    add("above-together", "model-parallel rank-norms", "C1 C4", [[part("w", tensor(3, 0.5))], [part("w",
        tensor(-2, 3))]], 4.0, ALL)
    add("one-above-one-below", "rank-norms", "C4",
        [[part("w", tensor(6, -8))], [part("w", tensor(0.3, 0.4))]], 2.0,
        ALL)
    add("uneven", "uneven sharded", "C2", [[part("w", random.uniform(5, 2)), part("w", random.uniform(2))],
        [part("w", random.uniform(1, 2))], []], 0.75, ALL)
    add("below", "at-threshold sharded", "C5", split, 16.0, ALL)
    add("at-threshold", "at-threshold rank-norms", "C5",
        [[part("w", tensor(3.0))], [part("w", tensor(0, -4))]], 5.0,
        ALL)
    g = tensor([3, -4, 1], [0.5, 2, -1])
    add("two-replicas", "replicated", "C3 C4", copies(g, 2), 2.0, ALL)
    add("four-replicas", "replicated", "C3 C4", copies(g, 4), 2.0, ALL)
    add("replicas-at-threshold", "replicated at-threshold", "C3 C5", copies(tensor(3, 4), 2), 5.0, ALL)
    add("replicas-below", "replicated at-threshold", "C3 C5", copies(tensor(3, 4), 4), 6.0, ALL)
    add("norm-28", "mixed replicated", "C1 C3", beside(copies(tensor(16, -16, 0.0), 8), [[part("w",
        tensor(2.0, -6 + i))] for i in range(8)]), 7.0, ALL)
    twenty = tensor(20, -20)
    add("tied-800", "tied", "C3",
        [[part("embedding", twenty, "tied")], [part("embedding", twenty.copy(), "tied")]],
        1.0, ALL)
    add("tied-on-one-rank", "tied", "C3",
        [[part("embedding", g, "tied"), part("w", tensor(1, 2)), part("embedding",
        g.copy(), "tied")]], 2.0, ALL)
    add("tied-at-threshold", "tied at-threshold", "C3 C5", copies(tensor(-3, 4), 3, "tied"), 5.0, ALL)
    whole = beside(copies(tensor(0.5, -2), 3), [*split, [part("b", tensor([1.5]))]])
    whole[0].append(part("embedding", g, "tied"))
    whole[2].append(part("embedding", g.copy(), "tied"))
    add("all-placements", "mixed tied replicated", "C1 C2 C3 C4", whole, 2.0, ALL)
    add("all-placements-below", "mixed tied replicated at-threshold", "C5", whole, 64.0, ALL)
    add("same-values-other-name", "replicated", "C1 C3", beside(copies(g, 2), copies(g, 2, name="other")),
        2.0, ALL)
    for name, order in (("1", 1), ("3", 3), ("half", 0.5), ("inf", "inf")):
        add(f"ord-{name}", "orders mixed", "C1 C2 C3", whole, 1.5, ALL, ord=order)
    add("ord-inf-at-threshold", "orders at-threshold", "C1 C5", split, 4.0, ord="inf")
    for name, bad in (("nan", np.nan), ("infinite", np.inf)):
        add(f"{name}-on-one-rank", "nonfinite", "C7",
        [[part("w", tensor(3, -4))], [part("w", tensor(bad, 0.5))],
            [part("b", tensor([[2.0]]))]], 2.0, ALL)
    large = [[part("w", tensor(3e20, -1e19))], [part("w", tensor([-4e20]))]]
    add("square-overflow", "square-overflow sharded", "C1", large, 1.0, ("float32", "bfloat16"))
    sixty = [[part("w", np.full(50, 300.0))], [part("w", np.full(50, -150.0))]]
    add("squares-beyond-float16", "square-overflow sharded", "C1", sixty, 1.0, ("float16",))
    huge = [[part("w", tensor(3e160, -1e159))], [part("w", tensor([-4e160]))]]
    add("square-overflow", "square-overflow sharded", "C1", huge, 1.0, ("float64",))
    tiny = [[part("w", tensor(3e-9))], [part("w", tensor([-4e-9]))]]
    add("tiny-threshold", "eps-visible", "C4", tiny, 1e-9)
    add("micro-threshold", "eps-visible", "C4", [[part("w", tensor(3e-6))], [part("w", tensor([-4e-6]))]], 1e-6)
    add("zero", "absent", "C5", [[part("w", tensor(0, -0.0))], [part("w", tensor([0.0]))]], 1.0, ALL)
    add("absent", "absent", "C8", [[part("w", tensor(3, -4)), part("b", None)], [part("w", None), part("b",
        tensor([12.0]))]], 6.5, ALL)
    add("absent-copy", "absent replicated", "C3 C8", [[part("n", None, "replicated")], [part("n", tensor(3, -4),
        "replicated")], [part("n", tensor(3, -4), "replicated")]], 2.0, ALL)
    add("empty-rank", "absent uneven", "C8", [[], [part("w", tensor(3, -4))], []], 2.0, ALL)
    add("all-absent", "absent", "C8", [[part("w", None)], []], 2.0, ("float32",))
    add("no-ranks", "absent", "C8", [], 2.0, ("float32",))
    bad_layouts = {
        "unknown-placement": [[part("w", tensor(3, 4), "partial")]],
        "two-placements": [[part("w", tensor(3, 4))], [part("w", tensor(3, 4), "replicated")]],
        "two-replicas-on-one-rank": [[part("w", tensor(3, 4), "replicated"),
        part("w", tensor(3, 4), "replicated")]],
        "copies-of-other-shape": [[part("w", tensor(3, 4), "replicated")],
        [part("w", tensor([3, 4]), "replicated")]],
        "copies-of-other-dtype": [[part("w", tensor(3, 4), "tied")],
        [part("w", fixed([3, 4], "float16"), "tied")]],
    }
    for name, layout in bad_layouts.items():
        add(name, "bad-layout", "C9", layout, 1.0, ("float32",))
    add("negative-limit", "bad-limit", "C9", split, -1.0)
    add("nan-limit", "bad-limit", "C9", split, "nan")
    add("ord-0", "bad-limit orders", "C9", split, 1.0, ord=0)
    add("zero-limit", "bad-limit sharded", "C4", split, 0.0, ALL)
    add("infinite-limit", "bad-limit sharded", "C5", split, "inf", ALL)
    add("mixed-dtypes", "mixed-dtypes mixed", "C6",
        [[part("w", fixed([3, 0.5], "float16")), part("n", tensor(2, -1),
        "replicated")], [part("w", fixed([[-4.0]], "bfloat16")), part("n", tensor(2, -1), "replicated")]], 2.0,
        ALL)
    add("wide-range", "wide-range mixed", "C1 C4",
        beside(copies(random.spread(5, 3), 4), [[part("w", random.spread(n,
        4))] for n in (1, 2, 3, 4)]), 10.0, ("float64", "float32", "bfloat16"))
    # fmt: on


OPERATION = Operation(
    id="dist.global_norm",
    summary="Clip a model that is spread over ranks by the norm of the whole model.",
    formula="n = (Σ|g|^p)^(1/p), each logical parameter once;  every shard g ← g · min(1, max_norm / n)",
    sources=(
        *clip_global_norm.OPERATION.sources,
        "M. Shoeybi et al.: Megatron-LM: training multi-billion parameter language models using model"
        " parallelism. 2019",
    ),
    constraints=CONSTRAINTS,
    inputs={
        "ranks": 'for each rank a list of shards {"name", "tensor", "placement"}; the placement is sharded'
        " (one of several parts), replicated (a whole copy on a rank) or tied (a whole copy at one of the"
        " places that use it); copies are taken to be equal; a null tensor is an absent gradient",
    },
    outputs={
        "shards": "for each rank the list of its tensors, clipped",
        "total_norm": "0-d: the norm of the whole model before clipping, the same on every rank",
    },
    params=clipping.PARAMS,
    dials=DIALS,
    oracle=oracle,
    tolerance=tolerance,
    tolerance_why=clipping.TOLERANCE_WHY,
    flags=FLAGS,
    cases=cases,
    mistakes=MISTAKES,
)
