# SPDX-License-Identifier: Apache-2.0
"""The picture of a scan: weights down, schemes across, colour for the error in the outputs."""

from __future__ import annotations

import math
from html import escape
from pathlib import PurePath

from toolkit.console import db_text, size_text
from toolkit.report_style import STYLE
from toolkit.scan_model import Scan
from toolkit.scan_points import ScanPoint

CELL_STYLE = """
td.cell{text-align:center;border:1px solid var(--panel);border-radius:4px;min-width:66px;color:#111}
td.cell small{display:block;font-size:11px;opacity:.75}
td.taken{outline:3px solid #0b3f3a;outline-offset:-3px;font-weight:650}
td.none{color:var(--dim);text-align:center}
td.name{min-width:110px}
th.scheme{white-space:normal;text-align:center;max-width:120px}
"""
LOW_DB, HIGH_DB = 10.0, 60.0
"""Colours run between these."""


def render_scan(found: Scan) -> str:
    """One self-contained HTML page."""
    name = escape(PurePath(found.model).name)
    notes = "".join(f"<li>{escape(note)}</li>" for note in found.notes)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{name}, scan</title><style>{STYLE}{CELL_STYLE}</style></head><body><main>"
        f'<header><p class="kicker">sensitivity scan</p><h1>{name}</h1>'
        f'<p class="target">Each weight alone under each scheme: the signal-to-noise ratio that '
        f"is left in the worst output, and the bytes it takes. Framed: what the recipe for "
        f"{found.target_text} takes, {size_text(found.predicted_bytes)} and "
        f"{db_text(found.predicted_sqnr_db)} predicted.</p></header>"
        f'<section><div class="scroll">{_table(found)}</div></section>'
        f"<section><h2>Recipe</h2><pre>{escape(found.recipe_text())}</pre></section>"
        + (f"<section><h2>Notes</h2><ul>{notes}</ul></section>" if notes else "")
        + "</main></body></html>\n"
    )


def _table(found: Scan) -> str:
    schemes = list(dict.fromkeys(point.scheme for point in found.points))
    cells = {(point.weight, point.scheme): point for point in found.points}
    between = found.sparsity is not None  # the recipe takes what lies between two columns
    titles = [*schemes, "recipe"] if between else schemes
    head = "".join(f'<th class="scheme">{escape(title)}</th>' for title in titles)
    rows = []
    for name, size in found.sizes.items():
        taken = found.chosen.get(name)
        own = "".join(_cell(cells[name, scheme], taken) for scheme in schemes)
        if between and taken is not None:
            own += _cell(taken, taken)
        rows.append(f'<tr><td class="name">{escape(name)}</td><td>{size_text(size)}</td>{own}</tr>')
    return (
        f"<table><thead><tr><th>weight</th><th>bytes</th>{head}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table>"
    )


def _cell(point: ScanPoint, taken: ScanPoint | None) -> str:
    if point.problem:
        return f'<td class="none" title="{escape(point.problem)}">–</td>'
    mark = " taken" if point is taken else ""
    return (
        f'<td class="cell{mark}" style="background:{_colour(point)}">{db_text(point.sqnr_db)}'
        f"<small>{size_text(point.num_bytes)}</small></td>"
    )


def _colour(point: ScanPoint) -> str:
    """From red (10 dB and below) over yellow to green (60 dB and above)."""
    level = point.sqnr_db if point.healthy else -math.inf
    share = min(max((level - LOW_DB) / (HIGH_DB - LOW_DB), 0.0), 1.0)
    return f"hsl({120 * share:.0f} 55% 74%)"
