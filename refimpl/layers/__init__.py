"""Layers: each returns ``(y, backprop)``; ``backprop(dy)`` returns the gradients of its arguments.

The backward pass stands right under the forward expression that it inverts. ``backprop`` reads the
arrays that went into the forward call, so they must not change in between. Images are NHWC and
kernels HWIO. 16-bit arrays are computed in float32 and rounded back once, at the end.
"""

from .activations import flatten, relu
from .conv2d import conv2d
from .dense import dense
from .pooling import avg_pool2d, max_pool2d

__all__ = ["avg_pool2d", "conv2d", "dense", "flatten", "max_pool2d", "relu"]
