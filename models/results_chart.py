# SPDX-License-Identifier: Apache-2.0
"""A picture of results: bytes of the parameters against the error on the test set, as SVG."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

_WIDTH, _HEIGHT = 720.0, 380.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 56.0, 24.0, 20.0, 46.0
_COLOURS = (
    "#1f6f8b",
    "#b5532a",
    "#4b7f3c",
    "#77549b",
    "#8a7a20",
    "#a33a6b",
    "#3b5bb5",
    "#222222",
)
_GREY = "#777777"


@dataclass(frozen=True)
class Point:
    """A network of ``num_bytes`` (of its parameters) with ``error`` percent; ``ours`` or
    published."""

    label: str
    num_bytes: float
    error: float
    ours: bool


def chart(title: str, points: Sequence[Point], *, are_curves: bool = False) -> str:
    """The picture; bytes on a logarithmic axis. One colour for each label of ours, grey crosses for
    what was published. ``are_curves``: points of one label of ours are joined, from small to large,
    labels stand in a corner, and the axis of errors begins below the smallest one, not at 0.

    Raises:
        ValueError: there are no points.
    """
    if not points:
        raise ValueError("no points to draw")
    sizes = [point.num_bytes for point in points]
    low, high = math.log2(min(sizes)) - 0.3, math.log2(max(sizes)) + 0.6
    errors = [point.error for point in points]
    most = 1.15 * max(errors)
    least = 0.9 * min(errors) if are_curves else 0.0

    def x_of(size: float) -> float:
        return _LEFT + (math.log2(size) - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT)

    def y_of(error: float) -> float:
        return _HEIGHT - _BOTTOM - (error - least) / (most - least) * (_HEIGHT - _TOP - _BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH:.0f} {_HEIGHT:.0f}" '
        f'font-family="sans-serif" font-size="12" role="img" aria-label="{escape(title)}">'
        f'<rect width="{_WIDTH:.0f}" height="{_HEIGHT:.0f}" fill="#ffffff"/>'
    ]
    step = next(s for s in (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0) if (most - least) / s <= 7)
    for index in range(math.ceil(least / step), int(most / step) + 1):
        y = y_of(index * step)
        parts.append(_line(_LEFT, y, _WIDTH - _RIGHT, y))
        parts.append(_text(_LEFT - 8, y + 4, f"{index * step:.1f} %", "end"))
    for power in range(math.ceil(low), math.floor(high) + 1):
        x = x_of(2.0**power)
        parts.append(_line(x, _TOP, x, _HEIGHT - _BOTTOM))
        name = f"{2 ** (power - 10)} KiB" if power >= 10 else f"{2**power} B"
        parts.append(_text(x, _HEIGHT - _BOTTOM + 17, name, "middle"))
    parts.append(_text(_WIDTH / 2, _HEIGHT - 8, "bytes of all parameters", "middle"))
    labels = list(dict.fromkeys(point.label for point in points if point.ours))
    if are_curves:
        for place, label in enumerate(labels):
            mine = sorted((p.num_bytes, p.error) for p in points if p.ours and p.label == label)
            path = "L".join(f"{x_of(size):.1f} {y_of(error):.1f}" for size, error in mine)
            colour = _COLOURS[place % len(_COLOURS)]
            parts.append(f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="1.5"/>')
            parts.append(_text(_WIDTH - _RIGHT, _TOP + 16 * (place + 1), label, "end", colour))
    named: set[str] = set()
    for point in points:
        x, y = x_of(point.num_bytes), y_of(point.error)
        colour = _COLOURS[labels.index(point.label) % len(_COLOURS)] if point.ours else _GREY
        told = f"{point.label}: {point.num_bytes:,.0f} bytes, {point.error:.2f} %"
        shape = (
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{colour}">'
            if point.ours
            else f'<path d="M{x - 5:.1f} {y - 5:.1f}l10 10m0 -10l-10 10" stroke="{colour}" '
            'stroke-width="2.5">'
        )
        parts.append(
            f"{shape}<title>{escape(told)}</title>{'</circle>' if point.ours else '</path>'}"
        )
        if point.label not in named and not (are_curves and point.ours):
            named.add(point.label)
            right = x > 0.7 * _WIDTH
            parts.append(
                _text(
                    x + (-9 if right else 9),
                    y - 7,
                    point.label,
                    "end" if right else "start",
                    colour,
                )
            )
    return "".join([*parts, "</svg>\n"])


def _line(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<path d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}" stroke="#dddddd"/>'


def _text(x: float, y: float, words: str, anchor: str, colour: str = "#333333") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}">'
        f"{escape(words)}</text>"
    )
