# SPDX-License-Identifier: Apache-2.0
"""What commands take in common: kinds of values, and options that stand at several of them."""

from __future__ import annotations

from typing import Any

import click

PATH = click.Path()
JSON_OPTION = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
JOBS_OPTION = click.option("--jobs", type=int, help="Threads; one per core by default.")
CALIBRATION_OPTION = click.option(
    "--calibration",
    type=PATH,
    help="Real inputs: .npz file, folder of .npz/.npy, or module:function that yields them.",
)


class Bytes(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """A number of bytes: 14300000, 14.3MB (10^6) or 13.6MiB (2^20)."""

    name = "bytes"
    units = {
        "": 1,
        "b": 1,
        "kb": 10**3,
        "mb": 10**6,
        "gb": 10**9,
        "kib": 2**10,
        "mib": 2**20,
        "gib": 2**30,
    }

    def convert(self, value: Any, param: Any, ctx: Any) -> int:
        if isinstance(value, int):
            return value
        text = str(value).strip().lower().replace("_", "").replace(",", "")
        number = text.rstrip("bkmgi ")
        factor = self.units.get(text[len(number) :].strip())
        try:
            if factor is not None:
                return int(float(number) * factor)
        except (ValueError, OverflowError):
            pass
        self.fail(f"{value!r} is no number of bytes, write for example 14300000 or 14.3MB")
