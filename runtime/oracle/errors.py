# SPDX-License-Identifier: Apache-2.0
"""The one error that the oracle decoders raise."""

from __future__ import annotations


class FormatError(ValueError):
    """A blob that FORMAT.md does not allow.

    Attributes:
        code: name of the matching status of `codec_api.h`, such as "TK_ERR_CHECKSUM".
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code


def require(condition: bool, code: str, message: str) -> None:
    """Raise FormatError(code, message) unless the condition holds."""
    if not condition:
        raise FormatError(code, message)
