# SPDX-License-Identifier: Apache-2.0
"""What one compression did: the object that `compress` returns and that every report shows."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from typing import Any

from toolkit.fidelity import Fidelity
from toolkit.search import TracePoint


@dataclass
class TensorRow:
    """One weight. `num_bytes` is its share of the compressed file, scales and nodes included;
    `step` is None where the scheme has none; `weight_sqnr_db` is that of the weight itself."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    role: str
    scheme: str
    coder: str
    original_bytes: int
    num_bytes: int
    num_elements: int
    step: float | None = None
    weight_sqnr_db: float | None = None

    @property
    def bits_per_weight(self) -> float:
        return 8.0 * self.num_bytes / max(self.num_elements, 1)


@dataclass
class Report:
    """The result of `compress`.

    `written` tells whether the output file exists now; `reached` whether the target was met;
    `shrunk` whether the file became smaller. `fidelity` compares the file as ONNX Runtime runs it
    with the original; `stock_fidelity` the same without the op library, None where no function
    bodies are embedded. Sizes are bytes of files with their external data; times are seconds.
    """

    model: str
    output: str | None
    original_bytes: int
    compressed_bytes: int
    target: str
    reached: bool
    written: bool
    fidelity: Fidelity
    stock_fidelity: Fidelity | None
    search_fidelity: Fidelity | None
    tensors: list[TensorRow]
    trace: list[TracePoint]
    settings: dict[str, Any]
    command: str
    seconds: dict[str, float]
    notes: list[str] = field(default_factory=list)
    functions: list[str] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def ratio(self) -> float:
        """Bytes of the original file / bytes of the compressed file."""
        return self.original_bytes / max(self.compressed_bytes, 1)

    @property
    def shrunk(self) -> bool:
        return self.compressed_bytes < self.original_bytes

    @property
    def exit_code(self) -> int:
        """0, or 1 where the target was not reached or the file not shrunk."""
        return 0 if self.reached and self.shrunk else 1

    @property
    def weight_bytes(self) -> tuple[int, int]:
        """Bytes of the compressed weights before and after."""
        return (
            sum(row.original_bytes for row in self.tensors),
            sum(row.num_bytes for row in self.tensors),
        )

    def as_dict(self) -> dict[str, Any]:
        """Plain values; see `to_json` for infinities."""
        values = asdict(self)
        values["ratio"], values["shrunk"] = self.ratio, self.shrunk
        values["exit_code"] = self.exit_code
        for key in ("fidelity", "stock_fidelity", "search_fidelity"):
            found: Fidelity | None = getattr(self, key)
            values[key] = found.as_dict() if found is not None else None
        for row, source in zip(values["tensors"], self.tensors, strict=True):
            row["bits_per_weight"] = source.bits_per_weight
        return values

    def to_json(self, indent: int | None = 2) -> str:
        """JSON text. Infinite figures become null: `exact` and `problem` tell why there is none."""
        return to_json(self.as_dict(), indent)


def to_json(values: Any, indent: int | None = 2) -> str:
    """JSON text of plain values, with null for NaN and infinities."""
    return json.dumps(_finite(values), indent=indent, ensure_ascii=False, default=str)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
