"""Exact mathematics that several operations share. Imports nothing of ``refimpl``."""
