# SPDX-License-Identifier: Apache-2.0
"""Prints the results of the commands for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from toolkit.console import db_text, print_table, shape_text, share_text, size_text

if TYPE_CHECKING:
    from toolkit.compare_models import Comparison
    from toolkit.fidelity import Fidelity
    from toolkit.inspect_model import Inspection
    from toolkit.list_passes import Listed
    from toolkit.prune_model import ChannelReport
    from toolkit.report import Report
    from toolkit.scan_model import Scan
    from toolkit.scan_points import ScanPoint
    from toolkit.sweep_model import Sweep

MAX_ROWS = 12


def print_report(report: Report) -> None:
    """The end of every compression: sizes, what it cost, what to know."""
    rows = [
        (
            row.name,
            shape_text(row.shape),
            f"{row.scheme}, {row.coder}",
            size_text(row.original_bytes),
            size_text(row.num_bytes),
            f"{row.bits_per_weight:.2f}",
            db_text(row.weight_sqnr_db),
        )
        for row in report.tensors[:MAX_ROWS]
    ]
    headers = ("weight", "shape", "form", "before", "after", "bits/weight", "weight SQNR")
    print_table(headers, rows)
    if len(report.tensors) > MAX_ROWS:
        print(f"... and {len(report.tensors) - MAX_ROWS} more weights")
    print_fidelity(report.fidelity)
    print(
        f"size: {size_text(report.original_bytes)} -> {size_text(report.compressed_bytes)} "
        f"({report.original_bytes} -> {report.compressed_bytes} bytes, "
        f"{report.ratio:.2f} x smaller)"
    )
    print(f"target: {report.target}: {'reached' if report.reached else 'NOT reached'}")
    ways = ["load mode"] + (["stock ONNX Runtime"] if report.stock_fidelity else [])
    print(f"verified in: {' and '.join(ways)}, {report.seconds.get('total', 0):.1f} s in all")
    for note in report.notes:
        print(f"note: {note}")
    if report.written:
        print(f"written: {report.output}")
    elif report.shrunk:
        print("dry run: nothing written")
    else:
        print("nothing written: the result would not be smaller")


def print_fidelity(fidelity: Fidelity) -> None:
    """One line per output, its worst slice beside it."""
    rows = []
    for output in fidelity.outputs:
        worst = output.worst_slices[0] if output.worst_slices else None
        slice_text = f"{db_text(worst.sqnr_db)} axis {worst.axis}, {worst.index}" if worst else "–"
        rows.append(
            (
                output.name,
                db_text(output.sqnr_db),
                slice_text,
                f"{output.max_abs_error:.3g}",
                f"{output.cosine:.6f}" if output.kind == "float" else share_text(output.agreement),
                share_text(output.top1_agreement),
            )
        )
    print_table(("output", "SQNR", "worst slice", "max error", "cosine", "top-1"), rows)
    for problem in fidelity.problems:
        print(f"problem: {problem}")


def print_inspection(found: Inspection) -> None:
    """A row per tensor."""
    kind = "compressed" if found.compressed else "plain"
    functions = f", functions {', '.join(found.functions)}" if found.functions else ""
    print(f"{found.model}: {kind}, {size_text(found.num_bytes)}, opset {found.opset}{functions}")
    rows = [
        (
            t.name,
            shape_text(t.shape),
            t.dtype,
            t.scheme,
            size_text(t.num_bytes),
            f"{t.bits_per_weight:.2f}",
            f"{t.entropy:.2f}",
            share_text(t.share),
        )
        for t in found.tensors
    ]
    headers = ("tensor", "shape", "type", "form", "bytes", "bits/weight", "entropy", "share")
    print_table(headers, rows)


def print_passes(found: Sequence[Listed]) -> None:
    """Each pass and scheme with its options, one a line."""
    for entry in found:
        print(f"{entry.kind} {entry.name}: {entry.summary}")
        for name, text in entry.options.items():
            print(f"    {name}: {text}")


def print_scan(found: Scan) -> None:
    """A row per weight and scheme, the chosen ones marked; then what the recipe predicts."""
    rows = [
        _scan_row(point, "taken" if found.chosen.get(point.weight) is point else "")
        for point in found.points
    ]
    if found.sparsity is not None:
        rows += [_scan_row(point, "recipe") for point in found.chosen.values()]
    print_table(("weight", "scheme", "bytes", "weight SQNR", "output SQNR", ""), rows)
    print(
        f"recipe: {size_text(found.predicted_bytes)} of {size_text(sum(found.sizes.values()))} and "
        f"{db_text(found.predicted_sqnr_db)} predicted"
    )
    for note in found.notes:
        print(f"note: {note}")


def _scan_row(point: ScanPoint, mark: str) -> tuple[str, ...]:
    return (
        point.weight,
        point.scheme,
        "–" if point.problem else size_text(point.num_bytes),
        "–" if point.problem else db_text(point.weight_sqnr_db),
        point.problem or db_text(point.sqnr_db),
        mark,
    )


def print_sweep(found: Sweep) -> None:
    """A row per point, the finest first."""
    from toolkit.sweep_page import HEADERS, table_rows

    print_table(HEADERS, table_rows(found))
    computed = len(found.points) - found.num_kept
    print(f"{computed} points computed, {found.num_kept} were kept; recipes in {found.folder}")
    if found.baseline is not None:
        print(f"metric {found.metric} of the original: {found.baseline:.6g}")
    for note in found.notes:
        print(f"note: {note}")


def print_comparison(found: Comparison) -> None:
    """Sizes and latencies side by side, then the fidelity."""
    rows = [
        (found.first, size_text(found.first_bytes), f"{found.first_ms:.2f} ms"),
        (found.second, size_text(found.second_bytes), f"{found.second_ms:.2f} ms"),
    ]
    print_table(("file", "size", "latency"), rows)
    print_fidelity(found.fidelity)
    print(f"ratio: {found.ratio:.2f}")
    for note in found.notes:
        print(f"note: {note}")


def print_pruning(report: ChannelReport) -> None:
    """What went, what had to stay, and what it cost."""
    rows = [(g.name, g.num_channels, g.num_channels - g.num_removed) for g in report.groups]
    print_table(
        ("channels made by", "before", "after"),
        [(name, str(before), str(after)) for name, before, after in rows[:MAX_ROWS]],
    )
    if len(rows) > MAX_ROWS:
        print(f"... and {len(rows) - MAX_ROWS} more groups")
    for layer in report.blocked[:MAX_ROWS]:
        print(f"left alone: {layer.name}, {layer.num_channels} channels: {layer.reason}")
    print_fidelity(report.fidelity)
    print(
        f"size: {size_text(report.original_bytes)} -> {size_text(report.pruned_bytes)}, "
        f"parameters: {report.original_parameters:,} -> {report.pruned_parameters:,}, "
        f"multiplications: {report.original_macs / 1e6:.1f} M -> {report.pruned_macs / 1e6:.1f} M, "
        f"latency: {report.original_ms:.2f} ms -> {report.pruned_ms:.2f} ms"
    )
    for note in report.notes:
        print(f"note: {note}")
    print(f"written: {report.output}")
