"""The conformance suite: specification, oracle, fixtures, runner, judge and reports.

Nothing here imports a framework, an adapter or ``refimpl``: implementations run in processes of their
own and are asked over a line protocol.
"""

__version__ = "1.0.0"
"""Version of the suite: of the cases and their expectations, written into every fixture file."""
