# SPDX-License-Identifier: Apache-2.0
"""Real photos: 20 with ImageNet labels for evaluation, and crops of two others for calibration."""

from __future__ import annotations

import functools
import io
from typing import Any

import numpy as np
import numpy.typing as npt

from models.fetch import read_member, read_members
from models.packages import PHOTOS, SCIKIT_LEARN

CALIBRATION = ("china.jpg", "flower.jpg")


@functools.cache
def _labelled() -> tuple[tuple[Any, int], ...]:
    """The labelled photos at full size, with their ImageNet classes."""
    from PIL import Image

    found = []
    for name, content in read_members(PHOTOS, (".jpg",)).items():
        with Image.open(io.BytesIO(content)) as picture:
            label = int(name.removesuffix(".jpg").rsplit("_", 1)[1])
            found.append((picture.convert("RGB"), label))
    return tuple(found)


@functools.cache
def _unlabelled() -> tuple[Any, ...]:
    from PIL import Image

    photos = []
    for name in CALIBRATION:
        member = f"scikit_learn-1.9.1/sklearn/datasets/images/{name}"
        with Image.open(io.BytesIO(read_member(SCIKIT_LEARN, member))) as picture:
            photos.append(picture.convert("RGB"))
    return tuple(photos)


@functools.cache
def labelled_photos(resize: int, crop: int) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """20 photos, uint8 RGB (20, crop, crop, 3), and their ImageNet classes, int64 (20,).

    The shorter side is resized to `resize` pixels (bicubic), then the centre is cut out.
    """
    from PIL import Image

    images = []
    for photo, _ in _labelled():
        scale = resize / min(photo.size)
        size = (round(photo.width * scale), round(photo.height * scale))
        image = photo.resize(size, Image.Resampling.BICUBIC)
        left, top = (image.width - crop) // 2, (image.height - crop) // 2
        images.append(np.asarray(image.crop((left, top, left + crop, top + crop))))
    return np.stack(images), np.asarray([label for _, label in _labelled()], np.int64)


@functools.cache
def photo_crops(count: int, side: int, labelled: tuple[int, ...] = ()) -> npt.NDArray[np.uint8]:
    """`count` crops of two photos outside of the labelled set and of those in it whose indices are
    in `labelled`, by turns, uint8 RGB (count, side, side, 3).

    Places and scales (a third of the shorter side to all of it) come from a fixed seed; every
    second round is mirrored.
    """
    from PIL import Image

    photos = [*_unlabelled(), *(_labelled()[index][0] for index in labelled)]
    random = np.random.default_rng(0)
    crops = []
    for index in range(count):
        photo = photos[index % len(photos)]
        size = int(min(photo.size) * random.uniform(1 / 3, 1))
        left = int(random.integers(photo.width - size + 1))
        top = int(random.integers(photo.height - size + 1))
        box = (left, top, left + size, top + size)
        pixels = np.asarray(photo.resize((side, side), Image.Resampling.BICUBIC, box))
        crops.append(pixels[:, ::-1] if index // len(photos) % 2 else pixels)
    return np.stack(crops)
