# SPDX-License-Identifier: Apache-2.0
"""Curves of bytes against quality: read between their files, and found around given qualities."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

Curve = list[tuple[float, float]]
"""Bytes and quality of files."""


def bytes_at(curve: Curve, quality: float) -> float:
    """Bytes at a quality, between the two files around it; NaN outside of the curve.

    Of files with less quality than a smaller one has, which luck brings, none counts."""
    rising: Curve = []
    for size, value in sorted(curve):
        if not rising or value > rising[-1][1]:
            rising.append((size, value))
    for (small, low), (large, high) in zip(rising, rising[1:], strict=False):
        if low <= quality <= high:
            share = (quality - low) / (high - low)
            return math.exp((1 - share) * math.log(small) + share * math.log(large))
    return math.nan


def curve_around(
    file_at: Callable[[float], tuple[float, float]],
    qualities: Sequence[float],
    start: float,
    spacing: float,
    finest: float,
) -> Curve:
    """Files at knobs from `start` on downwards, `spacing` apart, until all `qualities` lie between
    two of them or the knob is `finest`. `file_at(knob)` gives bytes and quality; a larger knob is
    coarser. Upwards where `start` is too fine already."""
    curve, knob = [file_at(start)], start
    while curve[-1][1] > min(qualities) and knob < start + 6 * spacing:
        knob += spacing
        curve.append(file_at(knob))
    knob = start
    while max(value for _, value in curve) < max(qualities) and knob - spacing >= finest:
        knob -= spacing
        curve.append(file_at(knob))
    return curve


def print_table(title: str, curves: dict[str, Curve], qualities: Sequence[float]) -> None:
    """Bytes of each curve at the qualities, and what the first of them has less."""
    print(f"\n{title:36}" + "".join(f"{quality:12.2f}" for quality in qualities))
    ours = [bytes_at(next(iter(curves.values())), quality) for quality in qualities]
    for name, curve in curves.items():
        sizes = [bytes_at(curve, quality) for quality in qualities]
        less = [f"{100 * (a / b - 1):+.1f} %" for a, b in zip(ours, sizes, strict=True)]
        print(f"{name:36}{''.join(f'{size:12,.0f}' for size in sizes)}  {', '.join(less)}")
