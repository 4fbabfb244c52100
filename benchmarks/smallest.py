# SPDX-License-Identifier: Apache-2.0
"""The smallest files for a given quality, with real inputs as calibration.

    python -m benchmarks.smallest [minilm] [cifar] [networks] [stories] [--folder FOLDER] [--anew]

minilm: the smallest file that the search finds for a mean cosine of the sentence embeddings, and
the seconds that it takes. cifar: accuracy against bytes beside NNCodec with uniform and dependent
quantisation, and with each ingredient switched off. networks: EfficientNet-Lite0 and the VAD at the
fidelity which the default, made without data, was measured to have. stories: perplexity against
bytes beside ONNX Runtime's block quantisation. Qualities are of data that is in no calibration.
Each file's figures are kept in the folder as soon as they are measured, so a killed run goes on.
"""

from __future__ import annotations

from pathlib import Path

import click

from benchmarks.kept_rows import KeptRows
from benchmarks.smallest_cifar import cifar
from benchmarks.smallest_minilm import minilm
from benchmarks.smallest_networks import networks
from benchmarks.smallest_stories import stories
from models.fetch import cache_folder

PARTS = {"minilm": minilm, "cifar": cifar, "networks": networks, "stories": stories}


@click.command()
@click.argument("parts", nargs=-1, type=click.Choice(list(PARTS)))
@click.option("--folder", type=click.Path(path_type=Path), help="In the cache by default.")
@click.option("--anew", is_flag=True, help="Measure again what is kept.")
def main(parts: tuple[str, ...], folder: Path | None, anew: bool) -> None:
    """The smallest files for a given quality."""
    for name in parts or PARTS:
        print(f"{name}\n", flush=True)
        home = (folder or cache_folder() / "benchmarks" / "smallest") / name
        home.mkdir(parents=True, exist_ok=True)
        if anew:
            (home / "rows.jsonl").unlink(missing_ok=True)
        PARTS[name](home, KeptRows(home / "rows.jsonl"))
        print(flush=True)


if __name__ == "__main__":
    main()
