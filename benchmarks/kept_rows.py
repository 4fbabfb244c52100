# SPDX-License-Identifier: Apache-2.0
"""Rows of a long benchmark, kept as soon as they are measured: one that was killed goes on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

Row = dict[str, Any]


class KeptRows:
    """Rows by key, in a file of one JSON object per line."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows: dict[str, Row] = {}
        if path.is_file():
            for line in path.read_text(encoding="utf-8").splitlines():
                try:
                    row = json.loads(line)
                except ValueError:  # killed while it was written
                    continue
                self._rows[row.pop("key")] = row

    def row(self, key: str, measure: Callable[[], Row]) -> Row:
        """The row of a key: the kept one, else what `measure` gives, which is kept from then on."""
        if key not in self._rows:
            found = measure()
            with self._path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"key": key, **found}) + "\n")
            self._rows[key] = found
        return self._rows[key]
