"""Keras 3 on PyTorch."""

from __future__ import annotations

import os

os.environ["KERAS_BACKEND"] = "torch"  # read when Keras is loaded
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import keras
import torch

from adapters.keras import adapter

__all__ = ["adapter", "keras", "torch"]
