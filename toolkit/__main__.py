# SPDX-License-Identifier: Apache-2.0
"""`python -m toolkit`: the same as the command `toolkit`."""

from __future__ import annotations

from toolkit.cli import entry

if __name__ == "__main__":
    entry()
