# SPDX-License-Identifier: Apache-2.0
"""How many channels each group loses, from how much the outputs of the model suffer from each.

Sensitivity is measured one group at a time, as in Li et al., "Pruning Filters for Efficient
ConvNets", ICLR 2017, section 3.2, with the refit that pruning itself makes. Squared errors are
taken to add up, and the total is divided along the lower hulls of the curves
(``sparsities_for_total``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from passes.activations import Activations
from passes.channels.groups import ChannelGroup, ChannelMap
from passes.channels.sweep import ChannelSweep, SweepSettings
from passes.errors import SettingsError
from passes.schemes.sparsity_allocation import sparsities_for_total

LADDER = (0.1, 0.2, 0.3, 0.45, 0.6, 0.75)
"""Shares of a group's channels that are tried."""

_Outputs = list[dict[str, npt.NDArray[Any]]]


class SomeFeeds:
    """The feeds ``start`` to ``stop`` of others."""

    def __init__(self, activations: Activations, start: int, stop: int) -> None:
        self._activations, self._start, self._stop = activations, start, stop

    @property
    def num_feeds(self) -> int:
        return self._stop - self._start

    def __call__(
        self, model: ir.Model, names: Sequence[str]
    ) -> Iterator[Mapping[str, npt.NDArray[Any]]]:
        return islice(self._activations(model, names), self._start, self._stop)


def shares_by_sensitivity(
    model: ir.Model,
    original: ir.Model,
    found: ChannelMap,
    shares: Mapping[ChannelGroup, float],
    settings: SweepSettings,
) -> dict[ChannelGroup, float]:
    """The share of channels that each group loses.

    Together as many channels go as with ``shares``; groups whose share is 0 lose none. Channels are
    chosen and layers refitted on the second half of the feeds, outputs are judged on the first, so
    that channels which merely the fit does not need are not taken for superfluous; a single feed
    serves for both.

    Args:
        model: Comes back as it was.
        original: The same model with weights of its own.
        found: The channels of ``model``.
        shares: For each group.
        settings: How channels are chosen.

    Raises:
        SettingsError: activations are missing, or the model has no outputs of floats.
        SchemeError: outputs that are not finite.
    """
    activations = settings.activations
    if activations is None or activations.num_feeds < 1:
        raise SettingsError("allocation 'sensitivity' needs activations")
    feeds = activations.num_feeds
    judge = SomeFeeds(activations, 0, (feeds + 1) // 2)
    fit = SomeFeeds(activations, feeds // 2 if feeds < 2 else (feeds + 1) // 2, feeds)
    wanted = _outputs(judge, original)
    groups = {group: share for group, share in shares.items() if share}
    levels = sorted({*LADDER, *groups.values()})
    most = {group: _count(group, levels[-1]) for group in groups}
    before = {value: value.const_value for value in model.graph.initializers.values()}
    sweep = ChannelSweep(model, original, found, most, replace(settings, activations=fit))
    curves: dict[str, list[tuple[float, float]]] = {}
    try:
        for group in groups:
            measured = sweep.moments(group)
            points = curves.setdefault(group.name, [(0.0, 0.0)])
            counts = sorted({_count(group, level) for level in levels} - {0})
            for count, chosen in sweep.choices(group, counts, measured).items():
                sweep.remove(group, chosen, measured)
                error = _relative_error(wanted, _outputs(judge, model))
                points.append((count / len(group.channels), error))
                sweep.removed[:] = False
                for value, tensor in before.items():
                    value.const_value = tensor
    finally:
        sweep.close()
    sizes = {group.name: len(group.channels) for group in groups}
    total = sum(share * len(group.channels) for group, share in groups.items())
    found_shares = sparsities_for_total(curves, sizes, total / max(sum(sizes.values()), 1))
    return {group: found_shares.get(group.name, 0.0) for group in shares}


def _count(group: ChannelGroup, share: float) -> int:
    return min(round(share * len(group.channels)), len(group.channels) - 1)


def _outputs(activations: Activations, model: ir.Model) -> _Outputs:
    names = [str(value.name) for value in model.graph.outputs]
    found: _Outputs = []
    for arrays in activations(model, names):
        found.append({name: arrays[name] for name in names if arrays[name].dtype.kind == "f"})
    if not any(found):
        raise SettingsError("allocation 'sensitivity' needs an output of floats")
    return found


def _relative_error(wanted: _Outputs, found: _Outputs) -> float:
    """Squared error by energy, the mean over the outputs."""
    ratios = []
    for name in wanted[0]:
        pairs = [(w[name].astype(np.float64), f[name]) for w, f in zip(wanted, found, strict=True)]
        error = sum(float(np.square(w - f).sum()) for w, f in pairs)
        energy = sum(float(np.square(w).sum()) for w, _ in pairs)
        ratios.append(error / max(energy, np.finfo(float).tiny))
    return float(np.mean(ratios))
