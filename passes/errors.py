# SPDX-License-Identifier: Apache-2.0
"""The errors that passes raise for what a caller gave them; every message is one line."""

from __future__ import annotations


class ModelError(ValueError):
    """A model file cannot be read, converted or written; names the file or the tensor."""


class SettingsError(ValueError):
    """A setting or a recipe is wrong; names the option, or the file and its line."""


class SchemeError(ValueError):
    """A scheme cannot represent an array, for example because it holds NaN; says why."""


def one_line(error: BaseException, limit: int = 300) -> str:
    """The text of ``error`` as one line of at most ``limit`` characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= limit else text[: limit - 1] + "…"
