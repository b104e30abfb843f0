"""Maximum and average over sliding windows of an image (N, H, W, C), each channel by itself."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from operator import add

import array_api_compat

from ..arrays import Array, Namespace, accumulation_dtype, astype, by_rows, namespace, widen
from ..checks import choice
from .checks import Padding, Pair, check_real, check_shape, check_upstream
from .windows import NO_PADDING, gather, place, scatter, spread


def max_pool2d(
    x: Array,
    *,
    window: Pair,
    stride: Pair | None = None,
    padding: Padding = NO_PADDING,
    dilation: Pair = (1, 1),
    ceil_mode: bool = False,
    ties: str = "first",
    nan: str = "propagate",
) -> tuple[Array, Callable[[Array], Array]]:
    """Return the maximum of each window, and its backward pass.

    ``x`` is (N, H, W, C), a real float array; ``y`` is (N, OH, OW, C) in its dtype. ``window``,
    ``stride`` (default: the window) and ``dilation`` are [h, w], ``padding`` is [[top, bottom],
    [left, right]]; ``ceil_mode`` as in :func:`refimpl.layers.windows.place_axis`. Raises ValueError
    if a shape, a dtype or a parameter does not fit, or if no window does.

    ``backprop(dy)`` returns ``dx``: each ``dy`` goes to the element that won its window. Of several
    equal winners, ``ties`` sends it to the ``first`` in row-major order, to ``all``, or ``split``
    among them evenly. Padding counts as -inf and never wins: a window wholly in it gives -inf, and
    its ``dy`` goes nowhere; a window of -inf elements sends its ``dy`` to those.

    ``nan="propagate"``: a window with a NaN gives NaN, and its NaNs are the (tied) winners.
    ``nan="ignore"``: a NaN counts as padding; a window of nothing but NaN gives -inf and no ``dx``.
    """
    xp = namespace(x)
    check_real(xp, x=x)
    check_shape("x", x, ("N", "H", "W", "C"))
    stride = window if stride is None else stride
    rows, columns = place(x, window, stride, padding, dilation, ceil_mode)
    choice("ties", ties, ("first", "all", "split"))
    choice("nan", nan, ("propagate", "ignore"))
    wide = widen(xp, x)
    eligible = ~xp.isnan(wide) if nan == "ignore" else xp.ones_like(wide, dtype=xp.bool)
    taps = gather(xp, xp.where(eligible, wide, -xp.inf), rows, columns, -xp.inf)

    best = reduce(lambda best, tap: xp.where((tap > best) | xp.isnan(tap), tap, best), taps)
    y = astype(xp, best, x.dtype)

    def backprop(dy: Array) -> Array:
        check_upstream(dy, y)
        winners = [
            ((tap == best) | (xp.isnan(tap) & xp.isnan(best))) & inside
            for tap, inside in zip(taps, gather(xp, eligible, rows, columns, False), strict=True)
        ]
        share = widen(xp, dy)
        if ties == "first":
            winners = _first(xp, winners)
        if ties == "split":
            number = reduce(add, [xp.astype(winner, share.dtype) for winner in winners])
            share = share / xp.where(number > 0, number, xp.ones_like(number))
        nothing = xp.zeros_like(share)
        dtaps = [xp.where(winner, share, nothing) for winner in winners]
        return astype(xp, scatter(xp, dtaps, rows, columns), x.dtype)

    return y, backprop


def avg_pool2d(
    x: Array,
    *,
    window: Pair,
    stride: Pair | None = None,
    padding: Padding = NO_PADDING,
    dilation: Pair = (1, 1),
    ceil_mode: bool = False,
    count_padding: bool = False,
) -> tuple[Array, Callable[[Array], Array]]:
    """Return the average of each window, and its backward pass.

    Shapes, geometry and errors as in :func:`max_pool2d`. Padding is zeros. The sum of a window is
    divided by the number of its elements that lie in the image or, with ``count_padding``, in the
    image or its padding; what overhangs the padding under ``ceil_mode`` never counts. A window in
    which nothing counts gives 0. ``backprop(dy)`` returns ``dx``: each element gets ``dy`` over the
    same divisor.
    """
    xp = namespace(x)
    check_real(xp, x=x)
    check_shape("x", x, ("N", "H", "W", "C"))
    stride = window if stride is None else stride
    rows, columns = place(x, window, stride, padding, dilation, ceil_mode)
    if not isinstance(count_padding, bool):
        raise ValueError(f"count_padding must be true or false, got {count_padding!r}")
    counts = [[r * c for c in columns.counts(count_padding)] for r in rows.counts(count_padding)]
    at_least_one = [[[max(count, 1)] for count in row] for row in counts]
    work, device = accumulation_dtype(xp, x), array_api_compat.device(x)
    divisor = xp.asarray(at_least_one, dtype=work, device=device)

    def averaged(images: Array) -> Array:
        taps = gather(xp, astype(xp, images, work), rows, columns, 0.0)
        return astype(xp, reduce(add, taps) / divisor, x.dtype)

    def shared(dy: Array) -> Array:
        share = astype(xp, dy, work) / divisor
        if rows.tiles and columns.tiles:
            return astype(xp, spread(xp, share, rows, columns), dy.dtype)
        dtaps = [share] * (rows.window * columns.window)
        return astype(xp, scatter(xp, dtaps, rows, columns), dy.dtype)

    y = by_rows(xp, averaged, x)

    def backprop(dy: Array) -> Array:
        check_upstream(dy, y)
        return by_rows(xp, shared, dy)

    return y, backprop


def _first(xp: Namespace, winners: list[Array]) -> list[Array]:
    """Return the winners without those that come after another winner of the same window."""
    firsts, taken = [], xp.zeros_like(winners[0])
    for winner in winners:
        firsts.append(winner & ~taken)
        taken = taken | winner
    return firsts
