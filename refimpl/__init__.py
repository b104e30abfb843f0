"""Canonical mathematics of gradient clipping, pruning, sparse optimisation and one training step.

Pure functions over array-API arrays: NumPy by default, the same lines on any other array library.
No function here writes to an array that the caller owns.

Read in this order: ``clipping``, ``pruning``, ``optimizers``, ``layers``, ``trainer``.
"""
