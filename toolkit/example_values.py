# SPDX-License-Identifier: Apache-2.0
"""Made-up values for one input: images, signals, token ids, masks."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import numpy.typing as npt

from toolkit.signature import InputSpec

Array = npt.NDArray[Any]

_STATE = re.compile(r"(^|_|\.)(h|c|hn|cn|h0|c0|state|hidden|cache|past|memory)(_|\.|\d|$)", re.I)


def example_array(
    spec: InputSpec, shape: tuple[int, ...], rng: np.random.Generator, bound: int | None
) -> Array:
    """Values of the input's element type. `bound` is the exclusive upper bound of integers.

    Floats: images in [0, 1] where the shape looks like one (smooth fields with texture, as a
    convolution meets them), zeros-and-small for recurrent states, ones for masks, else N(0, 1).
    Integers: ones for masks, zeros for token types, 0, 1, 2, ... for positions, the sampling rate
    16000 for `sr`, else uniform below the bound.
    """
    if spec.dtype is None:
        raise ValueError(f"no made-up values for input {spec.text}")
    name = spec.name.lower()
    kind = spec.dtype.kind
    if kind == "O":
        words = ["the", "quick", "brown", "fox", "jumps", "over", "a", "lazy", "dog"]
        return np.asarray(rng.choice(words, size=shape), dtype=object).reshape(shape)
    if kind == "b":
        if "mask" in name:
            return np.ones(shape, bool)
        if "use_cache" in name or not shape:
            return np.zeros(shape, bool)
        return rng.random(shape) < 0.5
    if kind == "f":
        return _floats(name, shape, rng).astype(spec.dtype)
    return _integers(name, shape, rng, bound, spec.dtype)


def _floats(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    if "mask" in name:
        return np.ones(shape)
    if _STATE.search(name):
        return 0.1 * rng.standard_normal(shape)
    if _looks_like_image(shape):
        return _images(shape, rng)
    return rng.standard_normal(shape)


def _integers(
    name: str,
    shape: tuple[int, ...],
    rng: np.random.Generator,
    bound: int | None,
    dtype: np.dtype[Any],
) -> Array:
    largest = int(np.iinfo(dtype).max)
    if "mask" in name:
        return np.ones(shape, dtype)
    if "token_type" in name or "segment" in name:
        return np.zeros(shape, dtype)
    if "position" in name and shape:
        return np.broadcast_to(np.arange(shape[-1]), shape).astype(dtype)
    if bound is None and name in ("sr", "sample_rate", "sampling_rate"):
        return np.full(shape, min(16_000, largest), dtype)
    if bound is None and ("length" in name or name.endswith("_len")):
        return np.ones(shape, dtype)
    if bound is None and dtype == np.uint8 and _looks_like_image(shape):
        return (255 * _images(shape, rng)).astype(np.uint8)
    return rng.integers(0, min(bound or 100, largest), shape).astype(dtype)


def _looks_like_image(shape: tuple[int, ...]) -> bool:
    if len(shape) not in (3, 4):
        return False
    last, first = shape[-1], shape[-3]
    if last in (1, 3, 4):
        return shape[-2] >= 8 and first >= 8
    return first in (1, 3, 4) and shape[-2] >= 8


def _images(shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Waves of falling amplitude with growing frequency, plus noise, brought to [0, 1]."""
    channels_last = shape[-1] in (1, 3, 4)
    *lead, height, width, channels = shape if channels_last else (*shape[:-3], *_moved(shape))
    image = np.zeros((*lead, channels, height, width))
    y, x = np.linspace(0, 1, height)[:, None], np.linspace(0, 1, width)[None, :]
    for octave in range(6):
        frequency = 2.0**octave * rng.uniform(0.5, 1.5, (2, *lead, channels, 1, 1))
        phase = rng.uniform(0, 2 * np.pi, (*lead, channels, 1, 1))
        wave = np.sin(2 * np.pi * (frequency[0] * y + frequency[1] * x) + phase)
        image += wave / 1.5**octave
    image += 0.2 * rng.standard_normal(image.shape)
    low, high = image.min((-2, -1), keepdims=True), image.max((-2, -1), keepdims=True)
    image = (image - low) / np.maximum(high - low, 1e-9)
    return np.moveaxis(image, -3, -1) if channels_last else image


def _moved(shape: tuple[int, ...]) -> tuple[int, int, int]:
    return shape[-2], shape[-1], shape[-3]
