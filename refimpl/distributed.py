"""The global norm of a model that is spread over ranks.

What goes wrong in practice is never the norm itself but who counts: a rank that sees only its own
shards, a replicated parameter that every rank adds, a tied weight that two pipeline stages hold. So
the reference decides that first (:func:`counted`) and leaves the rest to the clip of one machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypedDict, Unpack

from .arrays import Array, present
from .norms import NormClip, NormDials, clipped, scaled_norm

PLACEMENTS = ("sharded", "replicated", "tied")


class Shard(TypedDict):
    """What one rank holds of one logical parameter's gradient."""

    name: str
    """Of the logical parameter: the same on every rank that holds a part or a copy of it."""
    tensor: Array | None
    """The part or the copy; ``None`` is an absent gradient."""
    placement: Literal["sharded", "replicated", "tied"]
    """``sharded``: one of several parts, which together are the parameter. ``replicated``: a whole copy,
    one on each rank that has it. ``tied``: a whole copy at one of the places that use the parameter."""


Ranks = Sequence[Sequence[Shard]]


def clip_global_norm(
    ranks: Ranks, max_norm: float, ord: float = 2.0, **dials: Unpack[NormDials]
) -> tuple[list[list[Array | None]], Array]:
    """Clip the gradients of a distributed model by the norm of the whole model.

    ``n = (Σ|g|^p)^(1/p)`` over every element of every logical parameter, each counted once: all shards
    of a sharded one, one copy of a replicated or tied one. Every shard and every copy on every rank is
    multiplied by the same ``min(1, max_norm / n)``, so copies that were equal stay equal.

    Args:
        ranks: a list of shards for each rank. Copies of one parameter must have one shape and dtype and
            are taken to be equal: the first that is present counts.
        max_norm: threshold >= 0 in the units of the gradient.
        ord: p of the norm, a number > 0 or inf.
        dials: see :class:`~refimpl.norms.NormClip`.

    Returns:
        For each rank its shards, clipped, each in its own dtype; and the norm before clipping, which is
        the same on every rank (0-d; float64 if any shard is float64, else float32).

    Raises:
        ValueError: ``max_norm`` or ``ord`` has no meaning, a placement is unknown, a name has several
            placements, a rank holds two replicas of one parameter, or copies differ in shape or dtype.

    Source: constraints C1-C9 of ``dist.global_norm``; Shoeybi et al.: Megatron-LM. 2019.
    """
    clip = NormClip(max_norm, ord, **dials)
    owned = counted(ranks)
    if not owned:
        return [[shard["tensor"] for shard in rank] for rank in ranks], _no_norm()
    total = scaled_norm(owned, clip)
    shards = [
        [None if s["tensor"] is None else clipped(s["tensor"], total, clip) for s in rank]
        for rank in ranks
    ]
    return shards, total.norm


def counted(ranks: Ranks) -> list[Array]:
    """Return the arrays that the norm runs over: every shard, and one copy of what is held in copies."""
    check(ranks)
    copies: dict[str, Array] = {}
    parts: list[Array | None] = []
    for shard in (shard for rank in ranks for shard in rank):
        if shard["placement"] == "sharded":
            parts.append(shard["tensor"])
        elif shard["tensor"] is not None:
            copies.setdefault(shard["name"], shard["tensor"])
    return [*present(parts), *copies.values()]


def check(ranks: Ranks) -> None:
    """Raise ValueError for a layout that is not that of one model."""
    placements: dict[str, str] = {}
    forms: dict[str, Any] = {}
    for rank in ranks:
        replicas: set[str] = set()
        for shard in rank:
            name, placement, tensor = shard["name"], shard["placement"], shard["tensor"]
            if placement not in PLACEMENTS:
                raise ValueError(
                    f"placement must be one of {', '.join(PLACEMENTS)}, got {placement!r}"
                )
            if placements.setdefault(name, placement) != placement:
                raise ValueError(f"{name} is both {placements[name]} and {placement}")
            if placement == "replicated" and name in replicas:
                raise ValueError(f"a rank holds two replicas of {name}")
            replicas.add(name)
            if placement != "sharded" and tensor is not None:
                form = (tuple(tensor.shape), tensor.dtype)
                if forms.setdefault(name, form) != form:
                    raise ValueError(f"copies of {name} must have one shape and dtype")


def _no_norm() -> Array:
    # Without any gradient no array library is given; NumPy is the default one.
    import numpy as np

    return np.asarray(0.0, dtype=np.float32)
