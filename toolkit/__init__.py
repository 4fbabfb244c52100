# SPDX-License-Identifier: Apache-2.0
"""Turns a trained ONNX model into a much smaller ONNX file, and proves what that cost."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from toolkit.compare_models import Comparison, compare
    from toolkit.compress_model import compress
    from toolkit.errors import InputError, OutputError, VerificationError
    from toolkit.expand_model import expand
    from toolkit.inspect_model import inspect
    from toolkit.nn.export import ExportReport, export
    from toolkit.prune_model import ChannelReport, prune_channels
    from toolkit.report import Report
    from toolkit.sweep_model import Sweep, sweep

__all__ = [
    "ChannelReport",
    "Comparison",
    "ExportReport",
    "InputError",
    "OutputError",
    "Report",
    "Sweep",
    "VerificationError",
    "compare",
    "compress",
    "expand",
    "export",
    "inspect",
    "prune_channels",
    "sweep",
]

_HOMES = {
    "ChannelReport": "toolkit.prune_model",
    "Comparison": "toolkit.compare_models",
    "ExportReport": "toolkit.nn.export",
    "InputError": "toolkit.errors",
    "OutputError": "toolkit.errors",
    "Report": "toolkit.report",
    "VerificationError": "toolkit.errors",
    "compare": "toolkit.compare_models",
    "compress": "toolkit.compress_model",
    "expand": "toolkit.expand_model",
    "export": "toolkit.nn.export",
    "inspect": "toolkit.inspect_model",
    "prune_channels": "toolkit.prune_model",
    "Sweep": "toolkit.sweep_model",
    "sweep": "toolkit.sweep_model",
}


_PACKAGES = ("train",)


def __getattr__(name: str) -> Any:
    """Imports a public name at its first use: numpy, onnxruntime and torch take their time."""
    if name in _PACKAGES:
        return import_module(f"toolkit.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value
