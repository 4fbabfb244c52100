# SPDX-License-Identifier: Apache-2.0
"""How long work tells how far it is."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, str], None]
"""Called with a stage, which `toolkit.console.STAGES` puts into words, and a detail."""


def silent(stage: str, detail: str) -> None:
    """Where nobody wants to know."""
