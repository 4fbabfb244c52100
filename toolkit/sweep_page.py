# SPDX-License-Identifier: Apache-2.0
"""The page of a sweep: its curve and its table."""

from __future__ import annotations

from html import escape
from pathlib import PurePath

from toolkit.console import db_text, share_text, size_text
from toolkit.report_charts import curve_of_points
from toolkit.report_style import STYLE
from toolkit.search import TracePoint
from toolkit.sweep_model import Sweep

HEADERS = ("knob", "bytes", "ratio", "SQNR", "fitted to", "cosine", "top-1", "metric", "recipe")


def table_rows(found: Sweep) -> list[tuple[str, ...]]:
    """A row of texts for each point, as HEADERS say."""
    return [
        (
            f"{point.knob:+.2f}",
            f"{point.num_bytes:,}",
            f"{found.original_bytes / max(point.num_bytes, 1):.2f}",
            db_text(point.sqnr_db),
            db_text(point.fitted_sqnr_db),
            f"{point.cosine:.5f}",
            share_text(point.top1_agreement),
            "–" if point.score is None else f"{point.score:.5g}",
            PurePath(point.recipe).name,
        )
        for point in found.points
    ]


def render_sweep(found: Sweep) -> str:
    """One self-contained HTML page."""
    name = escape(PurePath(found.model).name)
    head = "".join(f"<th>{header}</th>" for header in HEADERS)
    rows = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>"
        for row in table_rows(found)
    )
    notes = "".join(f"<li>{escape(note)}</li>" for note in found.notes)
    points = [
        TracePoint("curve", p.knob, p.num_bytes, True, p.sqnr_db, None, p.healthy)
        for p in found.points
    ]
    metric = ""
    if found.metric is not None and found.baseline is not None:
        metric = f" The metric {escape(found.metric)} is {found.baseline:.5g} for the original."
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{name}, sweep</title><style>{STYLE}</style></head><body><main>"
        f'<header><p class="kicker">sweep</p><h1>{name}</h1><p class="target">'
        f"{size_text(found.original_bytes)} before. SQNR, cosine, top-1 agreement and metric are "
        f"of data kept apart from the fitting; “fitted to” is the SQNR of data that was.{metric}"
        f"</p></header><section>{curve_of_points(points)}</section>"
        f'<section><div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{rows}</tbody>'
        f"</table></div><p>Recipes: {escape(found.folder)}</p></section>"
        + (f"<section><h2>Notes</h2><ul>{notes}</ul></section>" if notes else "")
        + "</main></body></html>\n"
    )
