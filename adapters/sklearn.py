"""scikit-learn: proximal steps, as what its linear models minimise when the design is the identity.

Each prox is ``argmin ½‖b - w‖² + threshold · penalty(b)``. That is the objective of Lasso, ElasticNet,
MultiTaskLasso and Ridge for a design matrix X = I, up to the ``1/2n`` before their squares: rows of zeros
make n a power of 4 and X = √n · I, so that nothing is rounded by it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import sklearn
from sklearn import linear_model
from sklearn.exceptions import ConvergenceWarning

from adapters.base import Adapter, Unsupported

Array = Any
Arrays = list[Any]
Outputs = dict[str, Any]

WIDE = ("float64", "float32")

adapter = Adapter(
    "sklearn",
    version=sklearn.__version__,
    homepage="https://scikit-learn.org",
    to_native=lambda array: array,
    to_numpy=np.asarray,
)


def _each(function: Callable[[Array], Array], weights: Arrays) -> Outputs:
    return {"weights": [None if w is None else function(w) for w in weights]}


def _identity(rows: Array) -> tuple[Array, Array]:
    """Return √n · I and √n · rows, with rows of zeros so that √n is a power of two."""
    _check(rows)
    root = 1
    while root * root < len(rows):
        root *= 2
    design = np.zeros((root * root, len(rows)), rows.dtype)
    targets = np.zeros((root * root, *rows.shape[1:]), rows.dtype)
    np.fill_diagonal(design, root)
    targets[: len(rows)] = root * rows
    return design, targets


def _check(targets: Array) -> None:
    if targets.size == 0 or not np.isfinite(targets).all():
        raise Unsupported("scikit-learn fits finite numbers, and one at least")


def _fitted(model: Any, rows: Array) -> Array:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(*_identity(rows)).coef_


def _finite(*numbers: float) -> None:
    if not all(np.isfinite(number) for number in numbers):
        raise Unsupported("a penalty of scikit-learn is one finite number")


@adapter.operation("prox.l1", WIDE, {"zero_sign": "of_weight"})
def prox_l1(weights: Arrays, *, strength: float, step: float) -> Outputs:
    """``sklearn.linear_model.Lasso``."""
    _finite(strength, step)
    lasso = linear_model.Lasso(strength * step, fit_intercept=False, tol=0.0)
    return _each(lambda w: _fitted(lasso, w.ravel()).reshape(w.shape), weights)


@adapter.operation("prox.elastic_net", WIDE, {"zero_sign": "of_weight"})
def prox_elastic_net(weights: Arrays, *, l1: float, l2: float, step: float) -> Outputs:
    """``sklearn.linear_model.ElasticNet``: alpha · (l1_ratio · Σ|w| + ½ · (1 - l1_ratio) · Σw²)."""
    _finite(l1, l2, step)
    alpha = step * (l1 + 2 * l2)
    ratio = l1 / (l1 + 2 * l2) if alpha else 1.0
    model = linear_model.ElasticNet(alpha, l1_ratio=ratio, fit_intercept=False, tol=0.0)
    return _each(lambda w: _fitted(model, w.ravel()).reshape(w.shape), weights)


@adapter.operation("prox.l2", WIDE)
def prox_l2(weights: Arrays, *, strength: float, step: float) -> Outputs:
    """``sklearn.linear_model.ridge_regression``: ‖b - w‖² + alpha · ‖b‖²."""
    _finite(strength, step)
    alpha = 2 * strength * step

    def one(w: Array) -> Array:
        flat = w.ravel()
        _check(flat)
        return linear_model.ridge_regression(np.eye(flat.size, dtype=w.dtype), flat, alpha).reshape(
            w.shape
        )

    return _each(one, weights)


@adapter.operation("prox.group_lasso", WIDE)
def prox_group_lasso(weights: Arrays, *, strength: float, step: float, axis: Any) -> Outputs:
    """``sklearn.linear_model.MultiTaskLasso``, whose groups are the rows of a (features, tasks) matrix."""
    _finite(strength, step)
    model = linear_model.MultiTaskLasso(strength * step, fit_intercept=False, tol=0.0)

    def one(w: Array) -> Array:
        if w.ndim != 2 or axis not in (0, -2):
            raise Unsupported("the groups of MultiTaskLasso are the rows of a matrix")
        return _fitted(model, w).T

    return _each(one, weights)
