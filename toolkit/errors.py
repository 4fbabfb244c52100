# SPDX-License-Identifier: Apache-2.0
"""Errors of the toolkit and what each one means for the exit code of the command line."""

from __future__ import annotations


class InputError(ValueError):
    """Something that was given cannot be used: a file, a tensor, an option (exit code 2).

    The message is one line which names the file, tensor or option, what was expected and what was
    found.
    """


class TrainingError(InputError):
    """Training cannot go on with what was given: its loss is NaN, or it diverges (exit code 2). The
    message says where the last good checkpoint is."""


class OutputError(OSError):
    """The result could not be written; nothing half-written is left behind (exit code 2)."""


class VerificationError(RuntimeError):
    """The written file does not compute what was fitted: a bug, nothing is kept (exit code 70)."""


def one_line(error: BaseException, limit: int = 300) -> str:
    """The message of `error` on one line of at most `limit` characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= limit else text[: limit - 1] + "…"
