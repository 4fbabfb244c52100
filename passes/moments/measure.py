# SPDX-License-Identifier: Apache-2.0
"""Runs a model and sums up second moments of what its weights are multiplied with, run by run in
bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx_ir as ir

from passes.activations import Activations
from passes.errors import ModelError
from passes.moments.find_inputs import Input, find_inputs
from passes.moments.layer_inputs import Array, LayerInput, TableInput
from passes.schemes.moments import MatrixLayout, Moments, RowUse
from passes.select_weights import select_weights

MIN_ROWS, ROWS_PER_FEATURE = 8192, 16
"""Rows that are drawn for a layer, over all feeds: whichever is more."""
MAX_FEATURES = 8192
"""With more features only the diagonal is kept: the whole would take more than 500 MB."""
MAX_BYTES = 1 << 30
"""Of the sums of one pass over the data, where one layer alone does not need more."""
_EXACT_FEATURES = 512

Progress = Callable[[int, int], None]


@dataclass
class MeasuredMoments:
    """What was measured in one pass over the data.

    Attributes:
        found: By the names of weights.
        missing: For weights of which nothing can be measured, why.
    """

    found: dict[str, Moments | RowUse] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)


def measure_moments(
    activations: Activations,
    model: ir.Model,
    names: Sequence[str],
    *,
    seed: int = 0,
    max_bytes: int = MAX_BYTES,
    progress: Progress = lambda done, total: None,
) -> Iterator[MeasuredMoments]:
    """Moments of the inputs of weights, in as many passes over the data as ``max_bytes`` asks for;
    one result for each pass.

    Rows at padding are left out: those where an integer or boolean input of rank 2 with "mask" in
    its name is 0.

    Args:
        activations: Runs the model on calibration data.
        model: Not changed.
        names: The weights'; those that are no weights are missing in the results.
        seed: Of the rows that are drawn where there are many.
        max_bytes: What the sums of one pass may take.
        progress: Called with the number of runs done and their total.

    Raises:
        ModelError: a layer's input holds NaN or infinity.
    """
    copy = model.clone()
    wanted = set(names)
    inputs: dict[str, list[Input]] = {}
    missing: dict[str, str] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    for weight in select_weights(copy):
        if weight.name in wanted:
            found, reason = find_inputs(copy, weight)
            shapes[weight.name] = weight.shape
            if found:
                inputs[weight.name] = found
            else:
                missing[weight.name] = reason
    parts, masks = list(_parts(inputs, max_bytes)), _masks(copy)
    total, done = len(parts) * activations.num_feeds, 0
    if not parts:
        yield MeasuredMoments({}, missing)
    for number, part in enumerate(parts):
        sums = _Sums({name: inputs[name] for name in part}, shapes, activations.num_feeds, seed)
        constants = _constants(copy, sums.names)
        asked = list(dict.fromkeys([*sums.names, *masks]))
        for run in activations(copy, [name for name in asked if name not in constants]):
            sums.add({**run, **constants}, [run[name] for name in masks])
            done += 1
            progress(done, total)
        result = MeasuredMoments(sums.moments(), missing if number == 0 else {})
        unseen = [name for name in part if name not in result.found]
        result.missing |= dict.fromkeys(unseen, "no calibration sample reached it")
        yield result


def _parts(inputs: Mapping[str, list[Input]], max_bytes: int) -> Iterator[list[str]]:
    """Weights that are measured together; those with the same input always are."""
    by_key: dict[Hashable, list[str]] = {}
    for name, found in inputs.items():
        by_key.setdefault(_key(found), []).append(name)
    part: list[str] = []
    size = 0
    for names in by_key.values():
        needed = _num_bytes(inputs[names[0]])
        if part and size + needed > max_bytes:
            yield part
            part, size = [], 0
        part += names
        size += needed
    if part:
        yield part


def _key(found: list[Input]) -> Hashable:
    return tuple(use.key if isinstance(use, LayerInput) else use for use in found)


def _num_bytes(found: list[Input]) -> int:
    first = found[0]
    if isinstance(first, TableInput):
        return 0
    groups, features, _ = first.layout.matrix_shape
    return 8 * groups * features * (features if features <= MAX_FEATURES else 1)


def _masks(model: ir.Model) -> list[str]:
    """Names of the inputs that say which positions are padding."""
    return [
        str(value.name)
        for value in model.graph.inputs
        if "mask" in str(value.name).lower()
        and value.shape is not None
        and len(value.shape) == 2
        and value.dtype in (ir.DataType.BOOL, ir.DataType.INT32, ir.DataType.INT64)
    ]


def _constants(model: ir.Model, names: Sequence[str]) -> dict[str, Array]:
    """Those of the values that are initializers."""
    given = {name: model.graph.initializers.get(name) for name in names}
    return {
        name: np.asarray(value.const_value.numpy())
        for name, value in given.items()
        if value is not None and value.const_value is not None
    }


class _LayerSum:
    """Sums over the rows of one input, float64."""

    def __init__(self, layout: MatrixLayout) -> None:
        groups, features, _ = layout.matrix_shape
        self.is_full = features <= MAX_FEATURES
        self.inputs = np.zeros((groups, features, features) if self.is_full else (groups, features))
        self.total, self.count = np.zeros((groups, features)), 0

    def add(self, rows: Array) -> None:
        """Adds rows (groups, rows, features)."""
        kind = np.float64 if rows.shape[-1] <= _EXACT_FEATURES else np.float32
        rows = rows.astype(kind, copy=False)
        if self.is_full:
            self.inputs += rows.transpose(0, 2, 1) @ rows
        else:
            self.inputs += np.einsum("grf,grf->gf", rows, rows, dtype=np.float64)
        self.total += rows.sum(1, dtype=np.float64)
        self.count += rows.shape[1]

    def means(self) -> tuple[Array, Array]:
        """Of x x' and of x, float32."""
        inputs, total = self.inputs / self.count, self.total / self.count
        return inputs.astype(np.float32), total.astype(np.float32)


class _Sums:
    """What is summed up of some weights in one pass over the data."""

    def __init__(
        self,
        inputs: Mapping[str, list[Input]],
        shapes: Mapping[str, tuple[int, ...]],
        num_feeds: int,
        seed: int,
    ) -> None:
        self._inputs, self._num_feeds, self._seed = inputs, max(num_feeds, 1), seed
        self._layers: dict[Hashable, _LayerSum] = {}
        self._tables: dict[str, Array] = {}
        for name, found in inputs.items():
            if isinstance(found[0], TableInput):
                self._tables[name] = np.zeros(shapes[name][found[0].axis])
            else:
                self._layers.setdefault(_key(found), _LayerSum(found[0].layout))
        self._feed = 0

    @property
    def names(self) -> list[str]:
        """The values that are needed."""
        uses = (use for found in self._inputs.values() for use in found)
        return list(dict.fromkeys(name for use in uses for name in use.names))

    def add(self, found: Mapping[str, Array], masks: Sequence[Array]) -> None:
        """Adds one run."""
        done: set[Hashable] = set()
        for name, uses in self._inputs.items():
            key = _key(uses)
            for number, use in enumerate(uses):
                if isinstance(use, TableInput):
                    counts = use.counts(found, masks, self._tables[name].size)
                    self._tables[name] += counts
                elif key not in done:
                    self._add_rows(self._layers[key], use, found, masks, number)
            done.add(key)
        self._feed += 1

    def _add_rows(
        self,
        layer: _LayerSum,
        use: LayerInput,
        found: Mapping[str, Array],
        masks: Sequence[Array],
        number: int,
    ) -> None:
        features = use.layout.matrix_shape[1]
        wanted = max(MIN_ROWS, ROWS_PER_FEATURE * features)
        generator = np.random.default_rng((self._seed, self._feed, number))
        rows = use.rows(found, masks, -(-wanted // self._num_feeds), generator)
        if not np.isfinite(rows).all():
            raise ModelError(f"{use.names[0]}: NaN or infinity on calibration data")
        layer.add(rows)

    def moments(self) -> dict[str, Moments | RowUse]:
        """What the sums say of each weight, without a row nothing; the same arrays for weights with
        the same input."""
        means = {key: layer.means() for key, layer in self._layers.items() if layer.count}
        found: dict[str, Moments | RowUse] = {}
        for name, uses in self._inputs.items():
            first, key = uses[0], _key(uses)
            if isinstance(first, TableInput):
                found[name] = RowUse(self._tables[name], first.axis)
            elif key in means:
                found[name] = Moments(*means[key], float(self._layers[key].count), first.layout)
        return found
