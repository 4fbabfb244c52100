# SPDX-License-Identifier: Apache-2.0
"""Silences channels of a model group by group, and refits the layers behind: what is done before
channels are cut out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from passes.activations import Activations
from passes.channels.channel_grams import channel_grams
from passes.channels.greedy_refit import (
    RefitProblem,
    best_ridge,
    greedy_refit_removal,
    refit_problem,
)
from passes.channels.groups import ChannelGroup, ChannelMap
from passes.channels.labels import Labels
from passes.channels.lasso_refit import lasso_refit_removal
from passes.channels.layer_moments import MAX_FEATURES, LayerMoments, measure
from passes.channels.layer_samples import MatrixLayer, matrix_layer, set_constant
from passes.channels.original_rows import OriginalRows
from passes.channels.refit import Refit, refit_layer
from passes.channels.selection import (
    MEASURED,
    Selection,
    greedy_removal,
    lasso_removal,
    random_removal,
    smallest,
)
from passes.channels.trace import LayerUse, constant_of
from passes.errors import SettingsError


@dataclass(frozen=True)
class PrunedGroup:
    """What happened to one group of channels: its name (the weight of the first layer that makes
    it), how many channels it had and lost, and the weights of the layers that make and take them.
    """

    name: str
    num_channels: int
    num_removed: int
    producers: tuple[str, ...]
    consumers: tuple[str, ...]


@dataclass(frozen=True)
class SweepSettings:
    """How channels are chosen and what happens then, see ``PruneChannels``."""

    selection: Selection
    activations: Activations | None
    reconstruct: bool
    seed: int


class ChannelSweep:
    """Goes through the groups of a model and silences channels; which ones so far is its state.

    Args:
        model: Is changed: weights of removed channels become 0, layers are refitted.
        original: The model as it was.
        found: The channels of ``model``.
        counts: How many channels each group loses.
        settings: How.
    """

    def __init__(
        self,
        model: ir.Model,
        original: ir.Model,
        found: ChannelMap,
        counts: Mapping[ChannelGroup, int],
        settings: SweepSettings,
    ) -> None:
        self.model, self.found, self.settings = model, found, settings
        self.removed = np.zeros(int(found.number.max(initial=-1)) + 1, bool)
        self.refits: dict[str, Refit] = {}
        self.notes: list[str] = []
        self.generator = np.random.default_rng(settings.seed)
        self.counts = {group: count for group, count in counts.items() if count}
        self.place = {use: place for place, use in enumerate(found.consumers)}
        first = min((self._place(group) for group in self.counts), default=0)
        behind = found.consumers[first:]
        self.layers = {use: layer for use in behind if (layer := self._layer(use)) is not None}
        self.states = {use: layer.state() for use, layer in self.layers.items()}
        # When a layer's weight last changed, and when its input was last measured.
        self.time, self.changed = 0, np.zeros(len(found.consumers), int)
        self.measured: dict[LayerUse, int] = {}
        self.originals: OriginalRows | None = None
        if settings.activations is not None and (
            settings.reconstruct or settings.selection in MEASURED
        ):
            self.originals = OriginalRows(
                settings.activations, original, list(self.layers.values()), settings.seed
            )

    def close(self) -> None:
        """Gives back what was kept of the original."""
        if self.originals is not None:
            self.originals.close()

    def _place(self, group: ChannelGroup) -> int:
        """Where the first layer behind a group is among all of them."""
        return min((self.place[use] for use in group.consumers), default=len(self.place))

    def run(self) -> list[PrunedGroup]:
        """Goes through the layers in the order of the graph: prunes the groups that begin at each,
        and refits it where its input is not any more what it was."""
        pruned: dict[ChannelGroup, PrunedGroup] = {}
        for place in range(len(self.place) + 1):
            for group, count in self.counts.items():
                if self._place(group) == place:
                    pruned[group] = self._prune(group, count)
            use = self.found.consumers[place] if place < len(self.place) else None
            layer = self.layers.get(use) if use is not None else None
            if self.settings.reconstruct and layer is not None and self._is_stale(layer):
                self._refit(self._measure([layer])[0])
        return [pruned[group] for group in self.counts]

    def _prune(self, group: ChannelGroup, count: int) -> PrunedGroup:
        """Removes ``count`` channels of a group and refits the layers behind it."""
        measured = self.moments(group)
        self.remove(group, self.choose(group, count, measured), measured)
        return PrunedGroup(
            name=group.name,
            num_channels=len(group.channels),
            num_removed=count,
            producers=tuple(str(use.weight.name) for use in group.producers),
            consumers=tuple(str(use.weight.name) for use in group.consumers),
        )

    def moments(self, group: ChannelGroup) -> list[LayerMoments]:
        """Those of the layers behind a group, where they can be measured."""
        layers = [self.layers[use] for use in group.consumers if use in self.layers]
        return self._measure(layers) if self.originals is not None and layers else []

    def remove(self, group: ChannelGroup, chosen: Labels, measured: list[LayerMoments]) -> None:
        """Silences channels of a group, and refits the layers behind it."""
        self.removed[group.channels[chosen]] = True
        self._mask(group)
        if self.settings.reconstruct:
            for moments in measured:
                self._refit(moments)

    def _is_stale(self, layer: MatrixLayer) -> bool:
        """Whether a layer before this one changed since its input was last measured."""
        before = self.changed[: self.place[layer.use]]
        return bool((before > self.measured.get(layer.use, 0)).any())

    def _measure(self, layers: list[MatrixLayer]) -> list[LayerMoments]:
        activations = self.settings.activations
        if activations is None or self.originals is None:
            raise SettingsError("activations are missing")
        self.time += 1
        self.measured.update(dict.fromkeys((layer.use for layer in layers), self.time))
        return measure(activations, self.model, layers, self.originals)

    def choose(self, group: ChannelGroup, count: int, measured: list[LayerMoments]) -> Labels:
        """The channels of a group that go, int64 (count,), by their places in it."""
        how = self.settings.selection
        if how == "random":
            return random_removal(len(group.channels), count, self.generator)
        if how in MEASURED and not measured:
            self.notes.append(f"{group.name}: chosen by l2, the layers behind cannot be measured")
            how = "l2"
        if how in ("l1", "l2"):
            return smallest(self._norms(group, 1 if how == "l1" else 2), count)
        if how == "greedy" and self.settings.reconstruct:
            problems = self._problems(group, count, measured)
            if problems:
                return greedy_refit_removal(problems, count)
        if how == "lasso" and self.settings.reconstruct:
            number = self.found.number
            return lasso_refit_removal(measured, self.removed, group.channels, number, count)
        gram, target = channel_grams(measured, group.channels, self.found.number)
        if how == "greedy":
            return greedy_removal(gram, count)
        return lasso_removal(gram, target, count)

    def choices(
        self, group: ChannelGroup, counts: Sequence[int], measured: list[LayerMoments]
    ) -> dict[int, Labels]:
        """As ``choose``, for several counts; a greedy order is found once."""
        if self.settings.selection != "greedy" or not measured:
            return {count: self.choose(group, count, measured) for count in counts}
        order = self.choose(group, max(counts), measured)
        return {count: order[:count] for count in counts}

    def _problems(
        self, group: ChannelGroup, count: int, measured: list[LayerMoments]
    ) -> list[RefitProblem]:
        number = self.found.number
        kept = [~self.removed[number[moments.layer.feature_labels]] for moments in measured]
        judged = max(min(count, len(group.channels) // 3), 1)
        ridge = best_ridge(measured, kept, group.channels, number, judged)
        problems = [
            refit_problem(moments, mine, group.channels, number, ridge)
            for moments, mine in zip(measured, kept, strict=True)
        ]
        return [problem for problem in problems if problem is not None]

    def _norms(self, group: ChannelGroup, order: int) -> np.ndarray:
        """The norm of each channel's filters, by the mean norm of each layer's."""
        place = np.full(self.removed.size, -1, np.int64)
        place[group.channels] = np.arange(len(group.channels))
        total = np.zeros(len(group.channels))
        for use in group.producers:
            array = constant_of(use.weight)
            if array is None:
                raise ValueError(f"{use.weight.name} is no constant any more")
            rows = np.moveaxis(np.abs(array.astype(np.float64)), use.axis, 0)
            sums = (rows.reshape(len(rows), -1) ** order).sum(1)
            mine = place[self.found.number[use.labels]]
            norms = np.bincount(mine[mine >= 0], sums[mine >= 0], total.size) ** (1 / order)
            total += norms / max(float(norms.mean()), np.finfo(float).tiny)
        return total

    def _mask(self, group: ChannelGroup) -> None:
        """Makes the layers behind a group deaf to removed channels."""
        inputs = {(use.node, use.index, use.axis) for use in group.consumers}
        for use in self.found.constants:
            gone = self.removed[self.found.number[use.labels]]
            if (use.node, use.index, use.axis) in inputs and gone.any():
                array = np.array(constant_of(use.value))
                np.moveaxis(array, use.axis, 0)[gone] = 0
                set_constant(use.value, array)
        self._note_change(group.consumers)

    def _note_change(self, uses: Sequence[LayerUse]) -> None:
        self.time += 1
        self.changed[[self.place[use] for use in uses]] = self.time

    def _refit(self, moments: LayerMoments) -> None:
        layer = moments.layer
        if len(layer.use.weight.uses()) > 1:
            note = f"{layer.use.weight.name}: shared, not refitted"
            self.notes += [] if note in self.notes else [note]
            return
        kept = ~self.removed[self.found.number[layer.feature_labels]]
        refit = refit_layer(moments, kept, self.states[layer.use])
        self.refits[refit.name] = refit
        self._note_change([layer.use])

    def _layer(self, use: LayerUse) -> MatrixLayer | None:
        layer = matrix_layer(use)
        if layer is None or layer.num_features > MAX_FEATURES:
            size = "" if layer is None else f" ({layer.num_features} features)"
            if self.settings.activations is not None:
                self.notes.append(
                    f"{use.weight.name}: not measured or refitted{size}: {use.node.op_type}"
                )
            return None
        return layer
