# SPDX-License-Identifier: Apache-2.0
"""EfficientNet-Lite0 and the VAD at the fidelity of the default, which knows no data.

EfficientNet-Lite0 is fitted to crops of half of the labelled photos and of two others, and judged
on the other half.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.kept_rows import KeptRows
from benchmarks.networks import compress, library_run, stock_run
from benchmarks.smallest_cifar import held_out
from models.efficientnet_lite0 import RESIZED, SIDE, photo_feeds
from models.network import Feeds, Run
from models.photos import CALIBRATION, labelled_photos, photo_crops
from models.zoo import network
from toolkit.calibration_split import EVERY, PIECE
from toolkit.fidelity import compare_outputs
from toolkit.scores import score_kinds, to_scores

MOST_TRIES, TRIED_CLOSER = 4, 0.05
VAD_PIECES = 24
ROUNDS = 4
"""Times that each photo fitted to gives the crops of a piece."""


def networks(folder: Path, kept: KeptRows) -> None:
    """Bytes at the fidelity of the default."""
    for name in ("silero_vad", "efficientnet_lite0"):
        _network(name, folder, kept)


def _network(name: str, folder: Path, kept: KeptRows) -> None:
    entry = network(name)
    original, calibration = entry.onnx_path(), folder / f"{name}.npz"
    plain, fitted = folder / f"{name}.plain.onnx", folder / f"{name}.fitted.onnx"
    if name == "silero_vad":
        calibration = folder / name
        save_pieces(calibration)
    else:
        np.savez(calibration, **ordered_crops())

    def judged(path: Path) -> dict[str, Any]:
        run = library_run(path, "load")
        return {
            "bytes": path.stat().st_size,
            "db": fidelity(name, stock_run(original), run),
            "quality": entry.evaluate(run).value,
        }

    def default() -> dict[str, Any]:
        compress(original, plain, [])
        return judged(plain)

    def calibrated(asked: float) -> dict[str, Any]:
        options = ["--calibration", str(calibration), "--min-sqnr", f"{asked:.2f}"]
        seconds = compress(original, fitted, options)
        return {**judged(fitted), "seconds": round(seconds)}

    def line(text: str, row: dict[str, Any]) -> None:
        ratio = f"{before['bytes'] / row['bytes']:.2f} x smaller than the default"
        quality = f"{row['db']:.2f} dB, {row['quality']:.2f} {entry.unit}"
        print(f"{name:20}{text:26}{row['bytes']:10,} bytes  {quality}  {ratio}", flush=True)

    before = kept.row(f"{name}, default", default)
    line("default, without data", before)
    asked = before["db"]
    for _ in range(MOST_TRIES):
        row = kept.row(f"{name}, calibrated, {asked:.2f}", lambda: calibrated(asked))  # noqa: B023
        line(f"calibrated, {asked:.2f} dB", row)
        if row["db"] >= before["db"]:
            break
        asked += before["db"] - row["db"] + TRIED_CLOSER


def save_pieces(folder: Path) -> None:
    """The clips to calibrate the VAD with in pieces, each a run of its own: the model takes the
    frames of one piece of sound at a time."""
    feed = network("silero_vad").calibration(1 << 20)
    frames = feed["input"]
    folder.mkdir(exist_ok=True)
    length = len(frames) // VAD_PIECES
    for piece in range(VAD_PIECES):
        part = frames[piece * length : (piece + 1) * length]
        np.savez(folder / f"{piece:02}.npz", **{**feed, "input": part})


def fidelity(name: str, original: Run, run: Run) -> float:
    """Signal-to-noise ratio in dB, of the scores behind probabilities, on data that is in no
    calibration."""
    if name == "efficientnet_lite0":
        photos = photo_feeds(labelled_photos(RESIZED, SIDE)[0][::2])
        pieces: list[Feeds] = [{"images": photos["images"][i : i + 1]} for i in range(10)]
        before, after = ([{"0": r(piece)[0]} for piece in pieces] for r in (original, run))
    else:
        entry = network(name)
        before, after = held_out(entry, original), held_out(entry, run)
    kinds = score_kinds(before)
    return compare_outputs(to_scores(before, kinds), to_scores(after, kinds)).sqnr_db


def ordered_crops() -> Feeds:
    """Crops of the ten labelled photos of odd number and of two others, so that what `compress`
    keeps apart from the fitting is of other photos than what it fits to."""
    photos = (*range(1, 20, 2),)
    count = len(photos) + len(CALIBRATION)
    crops = photo_crops(count * PIECE * ROUNDS, SIDE, photos)
    by_photo = [list(crops[index::count]) for index in range(count)]
    apart, fitted = by_photo[: count // EVERY], by_photo[count // EVERY :]
    ordered: list[Any] = []
    for piece in range(ROUNDS * count):
        # Every fourth piece is kept apart: those are of the photos `apart`.
        source = apart if piece % EVERY == EVERY - 1 else fitted
        own = source[(piece // EVERY if source is apart else piece - piece // EVERY) % len(source)]
        ordered += [own.pop() for _ in range(min(PIECE, len(own)))]
    return photo_feeds(np.stack(ordered))
