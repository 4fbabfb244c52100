# SPDX-License-Identifier: Apache-2.0
"""What passes ask of whoever runs a model on calibration data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy.typing as npt
import onnx_ir as ir


class Activations(Protocol):
    """Runs a model on calibration data.

    Called with a model and names of values in it, it gives the arrays of those values by name, once
    for each of ``num_feeds`` feeds, the same feeds in the same order at every call.
    """

    @property
    def num_feeds(self) -> int: ...

    def __call__(
        self, model: ir.Model, names: Sequence[str]
    ) -> Iterator[Mapping[str, npt.NDArray[Any]]]: ...
