"""The two-dimensional convolution layer, as a matrix product over gathered windows (im2col)."""

from __future__ import annotations

from collections.abc import Callable

from ..arrays import Array, Namespace, accumulation_dtype, astype, is_numpy, namespace, zeros
from . import in_cache
from .checks import Padding, Pair, check_real, check_shape, check_upstream
from .dense import Backprop
from .windows import NO_PADDING, Axis, gather, place, scatter


def conv2d(
    x: Array,
    weight: Array,
    bias: Array | None = None,
    *,
    stride: Pair = (1, 1),
    padding: Padding = NO_PADDING,
    dilation: Pair = (1, 1),
    groups: int = 1,
) -> tuple[Array, Backprop]:
    """Return the cross-correlation of ``x`` with ``weight``, plus ``bias``, and its backward pass.

    ``x`` is (N, H, W, I), ``weight`` (kh, kw, I/groups, O), ``bias`` (O,) or None, all of one real
    float dtype; ``y`` is (N, OH, OW, O) in that dtype. ``stride`` and ``dilation`` are [h, w],
    ``padding`` (zeros) is [[top, bottom], [left, right]]. Output channels [g O/groups, (g+1)
    O/groups) see only the g-th block of input channels. ``backprop(dy)`` returns ``(dx, dweight,
    dbias)``; ``dbias`` is None where there is no bias, and ``dx`` where a first layer spares it with
    ``backprop(dy, with_dx=False)``. Raises ValueError if a shape, a dtype or a parameter does not
    fit, or if the kernel is larger than the padded image.

    ``y[n, p, q, o] = b[o] + sum_{i, j, c} x[n, p s + i d, q s + j d, c] w[i, j, c, o]``: the kernel
    is not flipped (Dumoulin and Visin, "A guide to convolution arithmetic", 2016).
    """
    rows, columns = placed(x, weight, bias, stride, padding, dilation, groups)
    xp = namespace(x, weight, bias)
    work, given = accumulation_dtype(xp, x), x.dtype
    wide_bias = None if bias is None else astype(xp, bias, work)
    operands = (astype(xp, x, work), astype(xp, weight, work), wide_bias, rows, columns)
    if is_numpy(xp) and groups == 1:
        wide_y, pullback = _correlate_in_cache(*operands)
    else:
        wide_y, pullback = _correlate(xp, *operands, groups)
    y = astype(xp, wide_y, given)

    def backprop(dy: Array, with_dx: bool = True) -> tuple[Array, Array, Array | None]:
        check_upstream(dy, y)
        gradients = pullback(astype(xp, dy, work), with_dx)
        dx, dweight, dbias = (None if g is None else astype(xp, g, given) for g in gradients)
        return dx, dweight, dbias

    return y, backprop


def placed(
    x: Array,
    weight: Array,
    bias: Array | None,
    stride: Pair = (1, 1),
    padding: Padding = NO_PADDING,
    dilation: Pair = (1, 1),
    groups: int = 1,
) -> tuple[Axis, Axis]:
    """Check the arguments of :func:`conv2d`; return where the windows lie along H and W."""
    xp = namespace(x, weight, bias)
    check_real(xp, x=x, weight=weight, bias=bias)
    check_shape("x", x, ("N", "H", "W", "I"))
    check_shape("weight", weight, ("kh", "kw", "I/groups", "O"))
    if type(groups) is not int or groups < 1 or weight.shape[3] % groups:
        outputs = weight.shape[3]
        raise ValueError(f"groups must divide the {outputs} output channels, got {groups!r}")
    if x.shape[3] != weight.shape[2] * groups:
        expected = f"{groups} group(s) of {weight.shape[2]}"
        raise ValueError(f"x must have {expected} input channels, got {x.shape[3]}")
    if bias is not None:
        check_shape("bias", bias, (weight.shape[3],))
    return place(x, (weight.shape[0], weight.shape[1]), stride, padding, dilation, ceil_mode=False)


def _correlate_in_cache(
    x: Array, weight: Array, bias: Array | None, rows: Axis, columns: Axis
) -> tuple[Array, Callable[[Array, bool], tuple[Array | None, Array, Array | None]]]:
    y, through = in_cache.run([in_cache.Step(weight, bias, rows, columns)], x)

    def backprop(dy: Array, with_dx: bool) -> tuple[Array | None, Array, Array | None]:
        dx, (dweight, dbias) = through(dy, with_dx)
        return dx, dweight, None if bias is None else dbias

    return y, backprop


def _correlate(
    xp: Namespace,
    x: Array,
    weight: Array,
    bias: Array | None,
    rows: Axis,
    columns: Axis,
    groups: int,
) -> tuple[Array, Callable[[Array, bool], tuple[Array | None, Array, Array | None]]]:
    kh, kw, inner, outer = weight.shape
    kernel_size, places = kh * kw * inner, x.shape[0] * rows.outputs * columns.outputs
    if places == 0:
        return _of_no_images(xp, x, weight, bias, (0, rows.outputs, columns.outputs, outer))

    kernel = _split(xp, xp.reshape(weight, (kernel_size, outer)), groups)
    taps = xp.stack(gather(xp, x, rows, columns, 0.0), axis=3)
    # Axes are split and merged whole: Dask reshapes nothing else.
    apart = (*taps.shape[:4], groups, inner)
    split_taps = xp.permute_dims(xp.reshape(taps, apart), (4, 0, 1, 2, 3, 5))
    windows = xp.reshape(split_taps, (groups, places, kernel_size))
    product = _merge(xp, xp.matmul(windows, kernel))
    flat_y = product if bias is None else product + bias
    y = xp.reshape(flat_y, (x.shape[0], rows.outputs, columns.outputs, outer))

    def backprop(dy: Array, with_dx: bool) -> tuple[Array | None, Array, Array | None]:
        flat_dy = xp.reshape(dy, (places, outer))
        split_dy = _split(xp, flat_dy, groups)
        dweight = _merge(xp, xp.matmul(xp.matrix_transpose(windows), split_dy))
        dbias = None if bias is None else xp.sum(flat_dy, axis=0)
        dx = None
        if with_dx:
            dwindows = xp.matmul(split_dy, xp.matrix_transpose(kernel))
            dtaps = xp.reshape(dwindows, tuple(split_taps.shape))
            dtaps = xp.reshape(xp.permute_dims(dtaps, (1, 2, 3, 4, 0, 5)), tuple(taps.shape))
            dx = scatter(xp, [dtaps[:, :, :, tap, :] for tap in range(kh * kw)], rows, columns)
        return dx, xp.reshape(dweight, tuple(weight.shape)), dbias

    return y, backprop


def _of_no_images(
    xp: Namespace, x: Array, weight: Array, bias: Array | None, shape: tuple[int, ...]
) -> tuple[Array, Callable[[Array, bool], tuple[Array | None, Array, Array | None]]]:
    """Return what an empty batch gives: no outputs, and gradients of 0. Dask cannot reshape its windows."""

    def backprop(dy: Array, with_dx: bool) -> tuple[Array | None, Array, Array | None]:
        dbias = None if bias is None else xp.zeros_like(bias)
        return xp.zeros_like(x) if with_dx else None, xp.zeros_like(weight), dbias

    return zeros(xp, shape, x), backprop


def _split(xp: Namespace, matrix: Array, groups: int) -> Array:
    """Return the blocks of columns of a matrix (a, groups * b) as a stack (groups, a, b)."""
    blocks = (matrix.shape[0], groups, matrix.shape[1] // groups)
    return xp.permute_dims(xp.reshape(matrix, blocks), (1, 0, 2))


def _merge(xp: Namespace, stack: Array) -> Array:
    """Undo :func:`_split`: a stack (groups, a, b) becomes a matrix (a, groups * b)."""
    groups, height, width = stack.shape
    return xp.reshape(xp.permute_dims(stack, (1, 0, 2)), (height, groups * width))
