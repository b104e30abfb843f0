"""Where sliding windows lie on an image: which pixel each tap of each window reads.

A window is listed tap by tap, as the definition has it; nothing here is an array operation.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from conformance.exact import Reject

Spot: TypeAlias = tuple[int, int]


@dataclass(frozen=True)
class Axis:
    """The windows along one axis; pixels below 0 or from ``size`` on are padding or overhang."""

    size: int
    before: int
    after: int
    windows: tuple[tuple[int, ...], ...]

    def inside(self, window: int) -> list[tuple[int, int]]:
        """Return the taps of a window that lie in the image, each with its pixel."""
        return [(t, p) for t, p in enumerate(self.windows[window]) if 0 <= p < self.size]

    def count(self, window: int, padding: bool) -> int:
        """Return how many taps of a window lie in the image (or its padding; never the overhang)."""
        low, high = (-self.before, self.size + self.after) if padding else (0, self.size)
        return sum(low <= pixel < high for pixel in self.windows[window])

    def overlap(self) -> int:
        """Return the largest number of windows that read one pixel."""
        pixels = [pixel for window in self.windows for pixel in window]
        return max((pixels.count(pixel) for pixel in range(self.size)), default=0)


def place(shape: tuple[int, ...], window: Any, settings: Mapping[str, Any]) -> tuple[Axis, Axis]:
    """Place windows on images (N, H, W, C) by the parameters ``stride``, ``padding``, ``dilation``
    and ``ceil_mode``; refuse a geometry that has no meaning."""
    if len(shape) != 4:
        raise Reject(f"images have 4 axes (N, H, W, C), got {len(shape)}")
    window = _pair("window", window, 1)
    stride = window if settings["stride"] is None else _pair("stride", settings["stride"], 1)
    dilation = _pair("dilation", settings["dilation"], 1)
    padding = settings["padding"]
    if not isinstance(padding, list | tuple) or len(padding) != 2:
        raise Reject(f"padding must be [[top, bottom], [left, right]], got {padding}")
    borders = [_pair("padding", border, 0) for border in padding]
    rows, columns = (
        _axis(shape[1 + i], window[i], stride[i], borders[i], dilation[i], settings["ceil_mode"])
        for i in (0, 1)
    )
    return rows, columns


def _axis(
    size: int, window: int, stride: int, border: Spot, dilation: int, ceil: bool | str
) -> Axis:
    before, after = border
    reach = (window - 1) * dilation + 1
    spare = before + size + after - reach
    count = spare // stride + 1
    # "always" is a known mistake, never a parameter: it keeps a window that sees nothing of the image.
    if ceil and spare % stride and (ceil == "always" or count * stride < before + size):
        count += 1
    if count < 1:
        raise Reject(f"a window that spans {reach} does not fit in {before + size + after}")
    starts = [index * stride - before for index in range(count)]
    taps = tuple(tuple(start + tap * dilation for tap in range(window)) for start in starts)
    return Axis(size, before, after, taps)


def each_window(
    rows: Axis, columns: Axis
) -> Iterator[tuple[Spot, list[tuple[Spot, tuple[int, int]]]]]:
    """Yield each window's place in the output and its taps in the image: (tap, pixel), row-major."""
    for i in range(len(rows.windows)):
        for j in range(len(columns.windows)):
            taps = [((a, b), (r, c)) for a, r in rows.inside(i) for b, c in columns.inside(j)]
            yield (i, j), taps


def _pair(name: str, value: Any, least: int) -> Spot:
    whole = isinstance(value, list | tuple) and len(value) == 2
    if not whole or any(type(item) is not int or item < least for item in value):
        raise Reject(f"{name} must be two integers of at least {least}, got {value}")
    return value[0], value[1]
