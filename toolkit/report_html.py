# SPDX-License-Identifier: Apache-2.0
"""The HTML report: one file without any outside resource, for a person to look at."""

from __future__ import annotations

import math
import re
from html import escape
from pathlib import PurePath

from toolkit.console import db_text, shape_text, share_text, size_text
from toolkit.fidelity import Fidelity
from toolkit.report import Report, TensorRow
from toolkit.report_charts import fidelity_curve, final_stage, size_map
from toolkit.report_style import STYLE

MAX_ROWS = 200


def render(report: Report) -> str:
    """The page as text."""
    name = PurePath(report.model).name
    sections = [
        _head(report, name),
        _sizes(report),
        _curve(report),
        _fidelity(report),
        _weights(report),
        _settings(report),
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(name)}, {report.ratio:.1f}× smaller</title><style>{STYLE}</style></head>"
        f"<body><main>{''.join(sections)}</main></body></html>\n"
    )


def _breakable(name: str) -> str:
    """A name as HTML that may be wrapped behind its dots, slashes and underscores."""
    return re.sub(r"([./_])(?=\w)", r"\1<wbr>", escape(name))


def _head(report: Report, name: str) -> str:
    verdict = (
        '<span class="badge good">target reached</span>'
        if report.reached
        else '<span class="badge bad">target not reached</span>'
    )
    if not report.written:
        verdict += '<span class="badge">nothing written</span>'
    worst = report.fidelity.worst_slice
    top1 = report.fidelity.top1_agreement
    cards = [
        (
            "smaller",
            f"{report.ratio:.2f}<small>×</small>",
            f"{size_text(report.original_bytes)} → {size_text(report.compressed_bytes)}",
        ),
        (
            "output fidelity",
            _figure(report.fidelity.sqnr_db),
            "the lowest output" if len(report.fidelity.outputs) > 1 else "the only output",
        ),
        (
            "worst slice",
            _figure(worst.sqnr_db) if worst else "exact",
            escape(worst.label) if worst else "every slice equals the original",
        ),
        ("top-1 agreement", _percent(top1), "same largest value")
        if top1 is not None
        else ("cosine", f"{report.fidelity.cosine:.5f}", "to the original outputs"),
        ("bits per weight", f"{_bits(report):.2f}", f"{len(report.tensors)} weights compressed"),
    ]
    tiles = "".join(
        f'<div class="card"><h3>{title}</h3><p class="big">{value}</p><p>{detail}</p></div>'
        for title, value, detail in cards
    )
    return (
        f'<header><p class="kicker">compressed ONNX model</p><h1>{escape(name)}</h1>'
        f'<p class="target">{verdict} {escape(report.target)}</p></header>'
        f'<section class="cards">{tiles}</section>'
    )


def _bits(report: Report) -> float:
    number = sum(row.num_elements for row in report.tensors)
    return 8 * report.weight_bytes[1] / max(number, 1)


def _figure(value: float) -> str:
    if not math.isfinite(value):
        return db_text(value)
    return f"{value:.1f}<small> dB</small>"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}<small> %</small>"


def _sizes(report: Report) -> str:
    return (
        "<section><h2>Where the bytes are</h2>"
        "<p>Each rectangle is a weight, its area the bytes it takes; both pictures have the same "
        "scale.</p>"
        f"<h3>before <span>{size_text(report.original_bytes)}</span></h3>{size_map(report, True)}"
        f"<h3>after <span>{size_text(report.compressed_bytes)}</span></h3>{size_map(report, False)}"
        f"{_legend(report)}</section>"
    )


def _legend(report: Report) -> str:
    names = {"weight": 1, "embedding": 2, "recurrent": 3, "minor": 4, "integer": 5}
    present = {row.role for row in report.tensors}
    texts = {"minor": "biases and norms", "integer": "already quantised"}
    entries = [
        f'<span><i class="t{colour}"></i>{texts.get(role, role)}</span>'
        for role, colour in names.items()
        if role in present
    ]
    entries.append('<span><i class="t6"></i>everything else</span>')
    return f'<p class="legend">{"".join(entries)}</p>'


def _curve(report: Report) -> str:
    picture = fidelity_curve(report)
    if not picture:
        return ""
    text = "Every candidate that the search ran, and the one it chose."
    if 'class="faint' in picture:
        ways = ["one common step for all weights", "steps weighted by how much each weight matters"]
        if final_stage(report.trace) == "uniform":
            ways.reverse()
        text += f" Paler points belong to {ways[0]}; the line to {ways[1]}."
    if ' lost"' in picture:
        text += " Hollow ones lose a slice of an output, whatever the whole output says."
    return f"<section><h2>Size against fidelity</h2><p>{text}</p>{picture}</section>"


def _fidelity(report: Report) -> str:
    ways = [("op library, load mode", report.fidelity)]
    if report.stock_fidelity is not None:
        ways.append(("stock ONNX Runtime, no library", report.stock_fidelity))
    body = "".join(
        (f"<h3>{title}</h3>" if len(ways) > 1 else "") + _outputs(found) for title, found in ways
    )
    return (
        "<section><h2>What it cost</h2><p>Outputs of the written file against those of the "
        "original. Each channel and each position of the last axis is judged on its own: an "
        f"average hides an output that died.</p>{body}</section>"
    )


def _outputs(fidelity: Fidelity) -> str:
    rows = []
    for output in fidelity.outputs:
        worst = output.worst_slices[0] if output.worst_slices else None
        label = "–"
        if worst:
            label = f"{db_text(worst.sqnr_db)} <em>axis {worst.axis}, {worst.index}</em>"
        similar = f"{output.cosine:.6f}" if output.kind == "float" else share_text(output.agreement)
        state = (
            escape(output.problem)
            if output.problem
            else (f"{output.dead_slices} dead slices" if output.dead_slices else "healthy")
        )
        kind = "bad" if output.problem or output.dead_slices else "good"
        rows.append(
            f'<tr><td class="name">{_breakable(output.name)}</td><td>{db_text(output.sqnr_db)}</td>'
            f"<td>{label}</td><td>{output.max_abs_error:.3g}</td><td>{similar}</td>"
            f"<td>{share_text(output.top1_agreement)}</td>"
            f'<td><span class="badge {kind}">{state}</span></td></tr>'
        )
    return (
        '<div class="scroll"><table><thead><tr><th>output</th><th>SQNR</th><th>worst slice</th>'
        "<th>largest error</th><th>cosine</th><th>top-1</th><th>state</th></tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _weights(report: Report) -> str:
    shown = report.tensors[:MAX_ROWS]
    peak = max((row.original_bytes for row in shown), default=1)
    rows = "".join(_weight(row, peak) for row in shown)
    more = len(report.tensors) - len(shown)
    tail = f"<p>and {more} smaller weights</p>" if more else ""
    return (
        "<section><h2>Weight by weight</h2>"
        '<div class="scroll"><table><thead><tr><th>weight</th><th>shape</th><th>form</th>'
        '<th class="bars">before and after</th><th>before</th><th>after</th><th>bits/weight</th>'
        "<th>own SQNR</th></tr></thead>"
        f"<tbody>{rows}</tbody></table></div>{tail}</section>"
    )


def _weight(row: TensorRow, peak: int) -> str:
    before = 100.0 * row.original_bytes / peak
    after = 100.0 * row.num_bytes / peak
    return (
        f'<tr><td class="name">{_breakable(row.name)}</td><td>{shape_text(row.shape)}</td>'
        f"<td>{escape(row.scheme)}, {escape(row.coder)}</td>"
        f'<td class="bars"><div class="bar" style="width:{max(before, 0.4):.2f}%"></div>'
        f'<div class="bar after" style="width:{max(after, 0.4):.2f}%"></div></td>'
        f"<td>{size_text(row.original_bytes)}</td><td>{size_text(row.num_bytes)}</td>"
        f"<td>{row.bits_per_weight:.2f}</td><td>{db_text(row.weight_sqnr_db)}</td></tr>"
    )


def _settings(report: Report) -> str:
    settings = {key: str(value) for key, value in report.settings.items()}
    settings["target"] = report.target
    settings["function bodies"] = ", ".join(report.functions) or "not embedded"
    settings["time"] = ", ".join(f"{k} {v:.1f} s" for k, v in report.seconds.items())
    settings["versions"] = ", ".join(f"{k} {v}" for k, v in report.versions.items())
    pairs = "".join(
        f"<dt>{escape(key)}</dt><dd>{escape(value)}</dd>" for key, value in settings.items()
    )
    notes = "".join(f"<li>{escape(note)}</li>" for note in report.notes)
    return (
        "<section><h2>How to get this again</h2>"
        f"<pre><code>{escape(report.command)}</code></pre><dl>{pairs}</dl>"
        + (f"<h3>notes</h3><ul>{notes}</ul>" if notes else "")
        + "</section>"
    )
