# SPDX-License-Identifier: Apache-2.0
"""Versions of what takes part in a result."""

from __future__ import annotations

PACKAGES = ("numpy", "onnx", "onnx-ir", "onnxruntime", "onnxruntime-gpu")
DISTRIBUTION = "onnx-weight-toolkit"


def versions() -> dict[str, str]:
    """Version by name: Python, the toolkit where it is installed, and the packages it rests on."""
    import platform
    from importlib import metadata  # not above: the command line imports this module

    found = {"python": platform.python_version()}
    for name in (DISTRIBUTION, *PACKAGES):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
