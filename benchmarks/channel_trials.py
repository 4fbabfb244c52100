# SPDX-License-Identifier: Apache-2.0
"""What the channel pruning benchmark runs on: networks, layers that lose channels, inputs to fit
to, and others, held apart, to judge by."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import numpy as np
import numpy.typing as npt

from models import efficientnet_lite0, open_nsfw
from models.cifar_cnn import cifar10_images, cifar10_test_labels
from models.network import Feeds, Run
from models.photos import CALIBRATION, labelled_photos, photo_crops

Outputs = npt.NDArray[np.float64]

LAYERS: dict[str, tuple[str, ...]] = {
    "cifar_cnn": ("*",),
    "open_nsfw": ("*branch2a*", "Conv__*"),
    "efficientnet_lite0": ("*expand_conv*", "_conv_head*"),
}
"""Which layers lose channels: all of the plain network, those inside of the blocks of the others,
whose residual sums stay."""


@dataclass(frozen=True)
class Trial:
    """One network's inputs: `calibration` in feeds of `feed_size`, the inputs `held` apart, run
    `batch` at a time, and their classes where they are known."""

    name: str
    calibration: Feeds
    feed_size: int
    held: Feeds
    batch: int
    labels: npt.NDArray[np.int64] | None

    def write_calibration(self, folder: Path) -> None:
        """One file for each feed."""
        count = len(next(iter(self.calibration.values())))
        for start in range(0, count, self.feed_size):
            part = {n: a[start : start + self.feed_size] for n, a in self.calibration.items()}
            np.savez(folder / f"{start:05d}.npz", **part)

    def outputs(self, run: Run) -> Outputs:
        """The scores of the inputs held apart, (samples, classes). Of open_nsfw the logarithm of
        the odds, (samples, 1): its probabilities are all but constant on these photos."""
        count = len(next(iter(self.held.values())))
        parts = []
        for start in range(0, count, self.batch):
            stop = start + self.batch
            parts.append(run({name: array[start:stop] for name, array in self.held.items()})[0])
        scores = np.concatenate(parts).astype(np.float64)
        if self.name == "open_nsfw":
            scores = np.log(np.maximum(scores, 1e-12)) @ np.array([[-1.0], [1.0]])
        return np.asarray(scores)

    def accuracy(self, outputs: Outputs) -> float | None:
        """Percent of the inputs held apart that are classified right, None without labels."""
        if self.labels is None:
            return None
        return float(100 * (outputs.argmax(1) == self.labels).mean())


def trial(name: str, quick: bool) -> Trial:
    """The trial of a network. Photos: fitted to crops of ten photos and of two others, judged on
    ten further ones. CIFAR-10: fitted to training images, judged on the test images."""
    if name == "cifar_cnn":
        calibration = {"images": cifar10_images("data_batch_1")[: 256 if quick else 1024]}
        count = 2000 if quick else 10_000
        held = {"images": cifar10_images("test_batch")[:count]}
        return Trial(name, calibration, 32, held, 100, cifar10_test_labels()[:count])
    module: ModuleType = {"open_nsfw": open_nsfw, "efficientnet_lite0": efficientnet_lite0}[name]
    count, size = 48, 1 if name == "open_nsfw" else 4
    pixels, labels = labelled_photos(module.RESIZED, module.SIDE)
    fitted = tuple(range(1, len(labels), 2))
    # Crops of a photo together: what judges a fit are then other photos than it was fitted to.
    photos = len(fitted) + len(CALIBRATION)
    order = np.argsort(np.arange(count) % photos, kind="stable")
    calibration = module.photo_feeds(photo_crops(count, module.SIDE, fitted)[order])
    held = module.photo_feeds(pixels[::2])
    known = labels[::2] if name == "efficientnet_lite0" else None
    return Trial(name, calibration, size, held, size, known)
