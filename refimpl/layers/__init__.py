"""Layers: each returns ``(y, backprop)``; ``backprop(dy)`` returns the gradients of its arguments.

The backward pass stands right under the forward expression that it inverts. ``backprop`` reads the
arrays that went into the forward call, so they must not change in between. Images are NHWC and
kernels HWIO. 16-bit arrays are computed in float32 and rounded back once, at the end.
"""

from .activations import flatten, relu
from .batch_norm import batch_norm
from .conv2d import conv2d
from .dense import dense
from .dropout import dropout
from .leaky_relu import leaky_relu
from .pooling import avg_pool2d, max_pool2d
from .rnn import rnn
from .sigmoid import sigmoid, tanh

__all__ = [
    "avg_pool2d",
    "batch_norm",
    "conv2d",
    "dense",
    "dropout",
    "flatten",
    "leaky_relu",
    "max_pool2d",
    "relu",
    "rnn",
    "sigmoid",
    "tanh",
]
