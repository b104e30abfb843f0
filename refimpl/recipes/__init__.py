"""Five small systems that articles describe, made to work on real data.

Each module A1 … A5 is one: ``run(options)`` trains, measures and returns a report, ``CLAIMS`` holds what
the article says that a run can refute, ``script(seed)`` is a short run that other frameworks repeat step
by step. ``secateurs recipe A2`` on a command line.
"""
