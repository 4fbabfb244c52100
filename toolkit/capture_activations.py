# SPDX-License-Identifier: Apache-2.0
"""Values inside of a model on calibration data, for passes that look at activations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy.typing as npt

from toolkit.calibration import Feed
from toolkit.errors import InputError, one_line
from toolkit.ort_session import quiet_options, session_of
from toolkit.weight_inputs import make_inputs, runtime_value

if TYPE_CHECKING:
    import onnx_ir as ir


class CapturedActivations:
    """`passes`' protocol `Activations` by stock ONNX Runtime: a call cuts the model off behind the
    values that are asked for, and runs what is left on every feed."""

    def __init__(self, feeds: Sequence[Feed], threads: int = 0) -> None:
        self._feeds, self._threads = list(feeds), threads

    @property
    def num_feeds(self) -> int:
        return len(self._feeds)

    def __call__(
        self, model: ir.Model, names: Sequence[str]
    ) -> Iterator[Mapping[str, npt.NDArray[Any]]]:
        """Arrays by name for each feed, one run at a time. Values that are inputs of the model come
        from the feed itself. Raises `InputError` where the model does not run, and `KeyError` for a
        name that it does not have."""
        inputs = {value.name for value in model.graph.inputs}
        computed = [name for name in names if name not in inputs]
        if not computed:
            yield from ({name: feed[name] for name in names} for feed in self._feeds)
            return
        part = _cut_behind(model, computed)
        taken = [str(value.name) for value in part.graph.inputs]
        stored = _take_stored(part)
        try:
            options = quiet_options(self._threads)
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
            session = session_of(part, options)
            for feed in self._feeds:
                given = {name: feed[name] for name in taken if name in feed} | stored
                found = dict(zip(computed, session.run(computed, given), strict=True))
                yield {name: found[name] if name in found else feed[name] for name in names}
        except (KeyError, MemoryError):
            raise
        except Exception as error:  # onnxruntime's exceptions share no public base
            raise InputError(
                f"the model does not run on the calibration data ({one_line(error)})"
            ) from error


def _cut_behind(model: ir.Model, names: Sequence[str]) -> ir.Model:
    """A copy of `model` with the values in `names` as its outputs and nothing else computed."""
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    part = model.clone()
    values = {o.name: o for node in part.graph for o in node.outputs}
    part.graph.outputs.clear()
    part.graph.outputs.extend(values[name] for name in names)
    RemoveUnusedNodesPass()(part)
    return part


def _take_stored(model: ir.Model) -> dict[str, Any]:
    """Makes inputs of the weights whose data lies in files of its own, and gives their values,
    mapped from there: a session of a model in memory does not find them, and would copy them."""
    import onnx_ir as ir

    weights: dict[str, ir.Value] = {}
    arrays: dict[str, Any] = {}
    for name, value in model.graph.initializers.items():
        if isinstance(value.const_value, ir.ExternalTensor):
            weights[name], arrays[name] = value, runtime_value(value.const_value.numpy())
    return {given: arrays[name] for name, given in make_inputs(model, weights).items()}
