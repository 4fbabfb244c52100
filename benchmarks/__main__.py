# SPDX-License-Identifier: Apache-2.0
"""Runs every benchmark, one after the other: `python -m benchmarks` or `make bench`."""

from __future__ import annotations

import subprocess
import sys

ALL = (
    "codec",
    "stock",
    "networks",
    "minilm",
    "session",
    "sums",
    "transform",
    "deep_compression",
    "cuda_decode",
    "cuda_packed",
    "cuda_session",
)


def main() -> int:
    """Run all; the number of those that failed."""
    failed = 0
    for name in ALL:
        print(f"\n== benchmarks.{name}", flush=True)
        failed += (
            subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=False).returncode
            != 0
        )
    return failed


if __name__ == "__main__":
    sys.exit(main())
