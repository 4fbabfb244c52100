# SPDX-License-Identifier: Apache-2.0
"""What the PTX machine raises."""

from __future__ import annotations


class PtxError(Exception):
    """A kernel did what a device would not allow or leaves undefined, or what this machine does
    not know: the message names the kernel, the instruction and the first thread concerned."""


class BadAccessError(PtxError):
    """What is wrong, and the place among the threads of the access of the first one concerned."""

    def __init__(self, problem: str, place: int) -> None:
        super().__init__(problem)
        self.place = place
