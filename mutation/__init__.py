"""The suite judged: faults are put into ``refimpl`` one at a time, and the suite alone must notice each.

``make mutants`` makes them with mutmut, asks the suite about every one and writes ``docs/mutation.md``.
"""
