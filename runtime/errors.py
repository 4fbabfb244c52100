# SPDX-License-Identifier: Apache-2.0
"""Errors of the codecs: one exception type whose code tells what is wrong with a blob."""

from __future__ import annotations

import enum


class Status(enum.IntEnum):
    """Status codes of the C API. They are frozen: a number never changes its meaning."""

    OK = 0
    ARGUMENT = 1
    MEMORY = 2
    TRUNCATED = 3
    MAGIC = 4
    VERSION = 5
    CODER = 6
    CHECKSUM = 7
    HEADER = 8
    TABLE = 9
    STREAM = 10
    EXCEPTION = 11
    NO_DEVICE = 12
    DEVICE_MEMORY = 13
    DEVICE = 14


class CodecError(ValueError):
    """A blob, or what was asked of it, is refused.

    Attributes:
        code: what is wrong, one of `Status`.
    """

    def __init__(self, message: str, code: Status) -> None:
        super().__init__(message)
        self.code = code

    def __reduce__(self) -> tuple[type[CodecError], tuple[str, Status]]:
        return type(self), (str(self), self.code)


class LibraryError(RuntimeError):
    """The op library is missing, or this machine cannot load it."""


class DeviceError(RuntimeError):
    """A CUDA device is missing, has no memory left, or failed.

    Attributes:
        code: NO_DEVICE, DEVICE_MEMORY or DEVICE of `Status`.
    """

    def __init__(self, message: str, code: Status) -> None:
        super().__init__(message)
        self.code = code

    def __reduce__(self) -> tuple[type[DeviceError], tuple[str, Status]]:
        return type(self), (str(self), self.code)


class ProviderError(RuntimeError):
    """An execution provider that was asked for is not active in the session."""


class ModelError(ValueError):
    """A compressed model cannot be decoded; the message names the node or tensor and the cause."""
