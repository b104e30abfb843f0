"""Make the fixture files: ``python -m conformance.build [--check | --validate] [OPERATION …]``."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import click

from conformance import fixtures
from conformance.operations import load, matching, names


def build(operation_id: str) -> dict[str, bytes]:
    """Return the fixture files of one operation by name."""
    return fixtures.build(load(operation_id))


def write(path: Path, content: bytes) -> None:
    """Write a file whole or not at all."""
    with tempfile.NamedTemporaryFile(
        dir=path.parent, prefix=f".{path.name}.", delete=False
    ) as part:
        part.write(content)
    os.chmod(part.name, 0o644)
    os.replace(part.name, path)


def stale(files: dict[str, bytes], folder: Path) -> list[str]:
    """Return the names of the files whose content on disk is not the one given."""
    return [
        name
        for name, content in files.items()
        if not (folder / name).exists() or (folder / name).read_bytes() != content
    ]


def invalid(operation_ids: Iterable[str], folder: Path) -> list[str]:
    """Return one line for each fixture file that is missing or not written as it must be."""
    complaints = []
    for name in operation_ids:
        try:
            fixtures.read(load(name), folder)
        except fixtures.FixtureError as error:
            complaints.append(str(error))
    return complaints


@click.command()
@click.argument("patterns", nargs=-1)
@click.option("--check", is_flag=True, help="Write nothing; exit with 1 if a file would change.")
@click.option(
    "--validate",
    is_flag=True,
    help="Write and compute nothing; exit with 1 if a file is not written as it must be.",
)
@click.option("--folder", type=click.Path(path_type=Path), default=fixtures.FOLDER, hidden=True)
def main(patterns: tuple[str, ...], check: bool, validate: bool, folder: Path) -> None:
    """Make the fixture files of the operations that the patterns name (all by default)."""
    chosen = [name for pattern in patterns or ("*",) for name in matching(pattern)]
    if not chosen:
        raise click.UsageError(f"no operation matches; there are: {', '.join(names())}")
    if validate:
        complaints = invalid(chosen, folder)
        for line in complaints:
            click.echo(line, err=True)
        raise SystemExit(1 if complaints else 0)
    folder.mkdir(parents=True, exist_ok=True)
    changed: list[str] = []
    with ProcessPoolExecutor() as pool:
        for name, files in zip(chosen, pool.map(build, chosen), strict=True):
            differing = stale(files, folder)
            changed += differing
            if not check:
                for file in differing:
                    write(folder / file, files[file])
            click.echo(f"{name}: {'changed' if differing else 'unchanged'}", err=True)
    if check and changed:
        click.echo(f"out of date: {', '.join(changed)}; run: make fixtures", err=True)
        raise SystemExit(1)


if __name__ == "__main__":
    main()
