# SPDX-License-Identifier: Apache-2.0
"""What the PTX machine raises."""

from __future__ import annotations


class PtxError(Exception):
    """A kernel did what a device would not allow or leaves undefined, or what this machine does
    not know: the message names the kernel, the instruction and the first thread concerned."""
