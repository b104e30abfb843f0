"""Adapters: one file per implementation under test, each a thin layer over its public functions."""
