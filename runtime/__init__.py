# SPDX-License-Identifier: Apache-2.0
"""Runs compressed ONNX models: codecs, op library and session.

`InferenceSession` is onnxruntime's class for compressed models; `register` and `library_path` are
for code that makes its sessions itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from runtime.errors import (
    CodecError,
    DeviceError,
    LibraryError,
    ModelError,
    ProviderError,
    Status,
)
from runtime.library import library_path, register
from runtime.wide import WideReader, encode_wide

if TYPE_CHECKING:
    from runtime.session import InferenceSession

__all__ = [
    "CodecError",
    "DeviceError",
    "InferenceSession",
    "LibraryError",
    "ModelError",
    "ProviderError",
    "Status",
    "WideReader",
    "encode_wide",
    "library_path",
    "register",
]


def __getattr__(name: str) -> Any:
    """Import the session on first use: onnxruntime and onnx are slow to import."""
    if name == "InferenceSession":
        from runtime.session import InferenceSession

        return InferenceSession
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
