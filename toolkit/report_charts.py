# SPDX-License-Identifier: Apache-2.0
"""Pictures of the HTML report as inline SVG: two treemaps and a curve. No script, no fonts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from toolkit.console import db_text, shape_text, size_text
from toolkit.report import Report, TensorRow
from toolkit.search import TracePoint

WIDTH, HEIGHT = 1000.0, 300.0
MAX_TILES = 60
SHORTEST_CUT = 14
"""Letters below which a name that had to be cut says nothing."""

ROLE_COLOURS = {"embedding": 2, "recurrent": 3, "minor": 4, "integer": 5}


@dataclass
class Tile:
    """A rectangle of a treemap. `row` is None for what is not a weight."""

    label: str
    value: float
    row: TensorRow | None
    x: float = 0.0
    y: float = 0.0
    width: float = 0.0
    height: float = 0.0


def size_map(report: Report, before: bool) -> str:
    """A treemap of the file's bytes, its area in proportion to the original's.

    The original fills the whole width; the compressed file is drawn at the same scale, so that the
    two pictures can be compared by eye.
    """
    total = report.original_bytes if before else report.compressed_bytes
    share = 1.0 if before else min(1.0, report.compressed_bytes / max(report.original_bytes, 1))
    tiles = _tiles(report.tensors, total, before)
    side = math.sqrt(share)
    width, height = WIDTH * side, HEIGHT * side
    _squarify(tiles, 0.0, 0.0, width, height)
    body = "".join(_draw(tile, before) for tile in tiles if tile.width > 0.4 and tile.height > 0.4)
    title = "original" if before else "compressed"
    return (
        f'<svg viewBox="0 0 {WIDTH:.0f} {max(height, 24):.1f}" role="img" '
        f'aria-label="bytes of the {title} file by weight">{body}</svg>'
    )


def _tiles(rows: Sequence[TensorRow], total: int, before: bool) -> list[Tile]:
    tiles = [
        Tile(row.name, float(row.original_bytes if before else row.num_bytes), row) for row in rows
    ]
    tiles.sort(key=lambda tile: -tile.value)
    shown, rest = tiles[:MAX_TILES], tiles[MAX_TILES:]
    if rest:
        text = f"{len(rest)} smaller weights"
        shown.append(Tile(text, sum(tile.value for tile in rest), None))
    other = total - sum(tile.value for tile in tiles)
    if other > 0:
        shown.append(Tile("graph and everything else", float(other), None))
    return sorted((tile for tile in shown if tile.value > 0), key=lambda tile: -tile.value)


def _squarify(tiles: list[Tile], x: float, y: float, width: float, height: float) -> None:
    """Squarified treemap (Bruls, Huizing and van Wijk 2000, section 3)."""
    total = sum(tile.value for tile in tiles)
    if not tiles or total <= 0 or width <= 0 or height <= 0:
        return
    scale = width * height / total
    pending = list(tiles)
    while pending:
        short = min(width, height)
        line: list[Tile] = []
        while pending:
            grown = [*line, pending[0]]
            if line and _worst(grown, short, scale) > _worst(line, short, scale):
                break
            line = grown
            pending.pop(0)
        area = sum(tile.value for tile in line) * scale
        depth = area / short if short else 0.0
        offset = 0.0
        for tile in line:
            length = tile.value * scale / depth if depth else 0.0
            if width >= height:
                tile.x, tile.y, tile.width, tile.height = x, y + offset, depth, length
            else:
                tile.x, tile.y, tile.width, tile.height = x + offset, y, length, depth
            offset += length
        if width >= height:
            x, width = x + depth, width - depth
        else:
            y, height = y + depth, height - depth


def _worst(line: Sequence[Tile], short: float, scale: float) -> float:
    areas = [tile.value * scale for tile in line]
    total = sum(areas)
    return max(max(short**2 * area / total**2, total**2 / (short**2 * area)) for area in areas)


def _draw(tile: Tile, before: bool) -> str:
    colour = ROLE_COLOURS.get(tile.row.role, 1) if tile.row else 6
    text = f"{tile.label} · {size_text(tile.value)}"
    if tile.row and not before:
        text += f" · {tile.row.bits_per_weight:.2f} bits per weight"
    elif tile.row:
        text += f" · {shape_text(tile.row.shape)}"
    parts = [
        f'<g><title>{escape(text)}</title><rect class="t{colour}" x="{tile.x + 0.7:.1f}" '
        f'y="{tile.y + 0.7:.1f}" width="{max(tile.width - 1.4, 0.3):.1f}" '
        f'height="{max(tile.height - 1.4, 0.3):.1f}" rx="2.5"/>'
    ]
    letters = int((tile.width - 12) / 7.6)
    lines = [("", _fitting(tile.label, letters)), ("dim", size_text(tile.value))]
    y = tile.y + 16
    for kind, line in lines:
        if line and len(line) <= letters and y + 6 <= tile.y + tile.height:
            parts.append(
                f'<text class="{kind}" x="{tile.x + 7:.1f}" y="{y:.1f}">{escape(line)}</text>'
            )
            y += 15
    return "".join([*parts, "</g>"])


def _fitting(label: str, letters: int) -> str:
    """A name of at most so many letters; empty where what is left would not tell weights apart."""
    name = label.removesuffix(".weight")
    if len(name) <= letters:
        return name
    return "…" + name[-(letters - 1) :] if letters >= SHORTEST_CUT else ""


def fidelity_curve(report: Report) -> str:
    """Bytes of the file against output SQNR for every candidate of the search."""
    return curve_of_points(report.trace)


def final_stage(trace: Sequence[TracePoint]) -> str:
    """The way of choosing steps that the search tried last, and took."""
    stages = [p.stage for p in trace if p.stage not in ("result", "curve")]
    return stages[-1] if stages else ""


def curve_of_points(trace: Sequence[TracePoint]) -> str:
    """Bytes of the file against output SQNR; a line through the points of `final_stage` and those
    of stage "curve", where they are healthy; empty without two points of finite SQNR."""
    points = [p for p in trace if p.sqnr_db is not None and math.isfinite(p.sqnr_db)]
    if len(points) < 2:
        return ""
    left, right, top, bottom = 62.0, 20.0, 18.0, 46.0
    width, height = 1000.0, 330.0
    sizes = [p.num_bytes for p in points]
    levels = [p.sqnr_db or 0.0 for p in points]
    low_x, high_x = min(sizes) * 0.94, max(sizes) * 1.05
    low_y, high_y = math.floor(min(levels) / 5) * 5.0, math.ceil(max(levels) / 5) * 5.0
    high_y = max(high_y, low_y + 5)

    def at(p: TracePoint) -> tuple[float, float]:
        x = left + (p.num_bytes - low_x) / (high_x - low_x) * (width - left - right)
        y = top + (high_y - (p.sqnr_db or 0.0)) / (high_y - low_y) * (height - top - bottom)
        return x, y

    parts = [
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" role="img" '
        'aria-label="output SQNR against bytes of the file">'
    ]
    step = 5.0 if high_y - low_y <= 40 else 10.0
    for index in range(int((high_y - low_y) / step) + 1):
        value = low_y + index * step
        y = top + (high_y - value) / (high_y - low_y) * (height - top - bottom)
        parts.append(
            f'<line class="grid" x1="{left}" x2="{width - right}" y1="{y:.1f}" '
            f'y2="{y:.1f}"/><text class="axis end" x="{left - 8}" y="{y + 4:.1f}">'
            f"{value:.0f} dB</text>"
        )
    for value in _ticks(low_x, high_x):
        x = left + (value - low_x) / (high_x - low_x) * (width - left - right)
        parts.append(
            f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" '
            f'y2="{height - bottom}"/><text class="axis mid" x="{x:.1f}" '
            f'y="{height - bottom + 18}">{size_text(value)}</text>'
        )
    parts.append(
        f'<text class="axis mid" x="{(left + width) / 2:.0f}" y="{height - 6}">'
        "bytes of the file</text>"
    )
    shown = (final_stage(points), "curve", "result")
    line = sorted(at(p) for p in points if p.stage in shown and p.healthy is not False)
    parts.append(
        '<polyline class="line" points="' + " ".join(f"{x:.1f},{y:.1f}" for x, y in line) + '"/>'
    )
    for p in sorted(points, key=lambda p: p.stage == "result"):
        x, y = at(p)
        kind = "chosen" if p.stage == "result" else "dot" if p.stage in shown else "faint"
        text = f"{size_text(p.num_bytes)}, {db_text(p.sqnr_db)}, step 2^{p.knob:+.2f} RMS"
        if p.healthy is False:
            kind, text = f"{kind} lost", f"{text}, an output is lost"
        parts.append(
            f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" '
            f'r="{7 if p.stage == "result" else 4}"><title>{escape(text)}</title></circle>'
        )
        if p.stage == "result":
            side = "end" if x > width * 0.7 else "start"
            shift = -13 if side == "end" else 13
            parts.append(
                f'<text class="callout {side}" x="{x + shift:.1f}" y="{y + 22:.1f}">'
                f"{size_text(p.num_bytes)} at {db_text(p.sqnr_db)}</text>"
            )
    return "".join([*parts, "</svg>"])


def _ticks(low: float, high: float) -> list[float]:
    """About six round numbers within the range."""
    raw = (high - low) / 6
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= raw)
    first = math.ceil(low / step)
    return [step * i for i in range(first, int(high / step) + 1)]
