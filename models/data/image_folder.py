# SPDX-License-Identifier: Apache-2.0
"""Images in a folder with one folder for each class, as ImageNet is laid out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

_SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".webp"}


class FolderError(ValueError):
    """A folder of data does not hold what it should; the message names the folder or file."""


class ImageFolder(Dataset[tuple[Tensor, int]]):
    """Images of ``folder/<class>/**/*.jpg`` (or png, webp, bmp); classes in the order of names.

    An item is the image, float32 (3, side, side), scaled so that its shorter side is side / 0.875,
    its middle cut out, with ImageNet's mean and deviation taken out; and the number of its class.

    Args:
        folder: the folder of the classes.
        side: height and width of the images, pixels.

    Attributes:
        classes: names of the classes.
        files: every image with the number of its class.

    Raises:
        FolderError: there is no such folder, it has no class folders, or a class has no images.
    """

    def __init__(self, folder: str | Path, side: int = 224) -> None:
        root = Path(folder)
        if not root.is_dir():
            raise FolderError(f"{root}: no such folder; expected one folder for each class in it")
        inner = sorted(entry for entry in root.iterdir() if entry.is_dir())
        if not inner:
            raise FolderError(f"{root}: no folders in it, expected one for each class")
        self.side, self.classes = side, [entry.name for entry in inner]
        self.files: list[tuple[Path, int]] = []
        for number, entry in enumerate(inner):
            found = sorted(file for file in entry.rglob("*") if file.suffix.lower() in _SUFFIXES)
            if not found:
                wanted = ", ".join(sorted(_SUFFIXES))
                raise FolderError(f"{entry}: no images of class {entry.name!r} ({wanted})")
            self.files += [(file, number) for file in found]

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        from PIL import Image, UnidentifiedImageError

        file, number = self.files[index]
        try:
            with Image.open(file) as picture:
                rgb = picture.convert("RGB")
        except (OSError, UnidentifiedImageError) as error:
            raise FolderError(f"{file}: not a readable image: {error}") from error
        wanted = round(self.side / 0.875)
        scale = wanted / min(rgb.size)
        width, height = (max(wanted, round(extent * scale)) for extent in rgb.size)
        rgb = rgb.resize((width, height), Image.Resampling.BILINEAR)
        left, top = (width - self.side) // 2, (height - self.side) // 2
        rgb = rgb.crop((left, top, left + self.side, top + self.side))
        pixels = torch.from_numpy(np.asarray(rgb, np.float32) / np.float32(255)).permute(2, 0, 1)
        mean = torch.tensor([0.485, 0.456, 0.406]).reshape(3, 1, 1)
        deviation = torch.tensor([0.229, 0.224, 0.225]).reshape(3, 1, 1)
        return (pixels - mean) / deviation, number
