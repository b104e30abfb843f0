"""torchao: the Wanda sparsifier, for half of every m neighbours (2:4 among them)."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import torch
import torchao
from torch import Tensor
from torchao.sparsity import WandaSparsifier

from adapters._torch_arrays import to_numpy, to_torch
from adapters.base import Adapter, Rejected, Unsupported

logging.disable(logging.WARNING)
warnings.simplefilter("ignore")

adapter = Adapter(
    "torchao",
    version=torchao.__version__,
    homepage="https://docs.pytorch.org/ao",
    to_native=to_torch,
    to_numpy=to_numpy,
)


@adapter.operation(
    "prune.n_m", dtypes=("float64", "float32"),
    dialect={"ties": "unspecified", "nan_score": "highest", "masking": "multiply"},
)  # fmt: skip
def prune_n_m(
    weights: Tensor, scores: Tensor, previous: Tensor | None = None, *, n: int, m: int, axis: int
) -> dict[str, Any]:
    """``WandaSparsifier(semi_structured_block_size=m)``: it ranks |w| · ‖x‖, and the scores are given as w."""
    if previous is not None or 2 * n != m:
        raise Unsupported("WandaSparsifier keeps half of m, and begins anew each time")
    if weights.ndim != 2 or scores.shape != weights.shape or axis not in (0, 1, -1, -2):
        raise Unsupported("WandaSparsifier prunes the matrix of a linear layer")
    if bool((scores < 0).any()):
        raise Unsupported("WandaSparsifier ranks magnitudes, which are not negative")
    turned = axis in (0, -2)
    rows, ranked = (weights.T, scores.T) if turned else (weights, scores)
    layer = torch.nn.Linear(ranked.shape[1], ranked.shape[0], bias=False, dtype=ranked.dtype)
    layer.weight.data = ranked.contiguous()
    model = torch.nn.Sequential(layer)
    sparsifier = WandaSparsifier(semi_structured_block_size=m)
    sparsifier.prepare(model, [{"tensor_fqn": "0.weight"}])
    try:
        model(torch.ones(1, ranked.shape[1], dtype=ranked.dtype))  # every activation has norm 1
        sparsifier.step()
    except RuntimeError as error:
        raise Rejected(str(error).partition("\n")[0]) from error
    parametrization = model[0].parametrizations["weight"][0]
    mask, pruned = parametrization.mask.bool(), parametrization(rows)
    return {"mask": mask.T if turned else mask, "weights": pruned.T if turned else pruned}
