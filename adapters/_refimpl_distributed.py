"""What the canonical implementation does with a model on several ranks, put before the suite."""

from __future__ import annotations

from typing import Any

from adapters.base import Operations
from refimpl import distributed

operations = Operations()


@operations.operation("dist.global_norm")
def dist_global_norm(ranks: Any, *, max_norm: float, **params: Any) -> dict[str, Any]:
    """``refimpl.distributed.clip_global_norm``."""
    shards, total = distributed.clip_global_norm(ranks, max_norm, **params)
    return {"shards": shards, "total_norm": total}
