# SPDX-License-Identifier: Apache-2.0
"""Removes channels from convolutions and dense layers, and refits the layers behind them.

Greedy selection: Luo, Wu, Lin, "ThiNet", ICCV 2017. Lasso selection and reconstruction: He, Zhang,
Sun, "Channel Pruning for Accelerating Very Deep Neural Networks", ICCV 2017. Norms of filters: Li
et al., "Pruning Filters for Efficient ConvNets", ICLR 2017.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import gcd

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import LiftConstantsToInitializersPass

from passes.activations import Activations
from passes.channels.channel_grams import channel_grams
from passes.channels.greedy_refit import (
    RefitProblem,
    greedy_refit_removal,
    refit_problem,
)
from passes.channels.groups import BlockedLayer, ChannelGroup, ChannelMap, find_channel_groups
from passes.channels.labels import Labels
from passes.channels.lasso_refit import lasso_refit_removal
from passes.channels.layer_moments import MAX_FEATURES, LayerMoments, measure
from passes.channels.layer_samples import MatrixLayer, matrix_layer, set_constant
from passes.channels.original_rows import OriginalRows
from passes.channels.refit import Refit, refit_layer
from passes.channels.selection import (
    MEASURED,
    Selection,
    check_selection,
    greedy_removal,
    lasso_removal,
    random_removal,
    smallest,
)
from passes.channels.surgery import add_initializer, cut_channels
from passes.channels.trace import LayerUse, constant_of
from passes.errors import SettingsError

Fractions = float | Mapping[str, float]


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


@dataclass
class PruneResult(ir.passes.PassResult):
    """The pass's result.

    Attributes:
        groups: The groups, in the order of the graph.
        blocked: Layers whose output channels had to stay, and why.
        refits: The last refit of each layer.
        masked: The model with all channels still there, those removed not listened to; it computes
            what the pruned model computes.
        notes: What was done otherwise than asked, one line each.
    """

    groups: tuple[PrunedGroup, ...] = ()
    blocked: tuple[BlockedLayer, ...] = ()
    refits: tuple[Refit, ...] = ()
    masked: ir.Model | None = None
    notes: tuple[str, ...] = ()


class PruneChannels(ir.passes.InPlacePass):
    """Removes a fraction of the channels of every group that can be pruned.

    Rules, in this order:
      0. Constant nodes become initializers.
      1. ``find_channel_groups`` says which channels go together. Groups are pruned one by one in
         the order of the graph, on activations of the model as pruned so far.
      2. Of each group the channels that ``selection`` names go: ``greedy`` and ``lasso`` look at
         the outputs of the layers behind (this needs ``activations``; greedy with ``reconstruct``
         at the error that the refit will leave), ``l1`` and ``l2`` at the
         norms of the filters, ``random`` at nothing.
      3. With ``reconstruct`` the layers behind are refitted by least squares, with a bias where
         they had none, to what the original gave. A layer at the end of a residual branch is fitted
         to what the sum lacks, so that it makes up for errors of the shortcut. Later layers whose
         inputs changed are refitted too, in the order of the graph, where that helps.
      4. Channels are cut out: weights, biases, normalisation and slopes, numbers of groups, sizes
         in Reshape, Split, Expand and Resize.

    Left alone, with a reason in the result: channels that reach an output of the model or an
    operator without a rule; the last channel of a group. Shared weights are cut but not refitted.

    Args:
        selection: ``greedy``, ``lasso``, ``l1``, ``l2`` or ``random``.
        fraction: The share of channels to remove, 0 to 1 without 1; or a mapping from glob patterns
            on weight names to shares, where a group takes the first that matches the weight of a
            layer that makes it, and stays where none does.
        activations: Runs the model on calibration data.
        reconstruct: Whether to refit.
        multiple_of: Numbers of channels that stay are rounded to the nearest multiple of this,
            where there are more: processors work on 8 or 16 at a time. What goes as one, such as an
            attention head, counts as the channels that it has.
        seed: Of the random selection and of the places that are sampled.

    Raises:
        SettingsError: a selection that does not exist, a fraction outside of its range, a pattern
            that matches nothing, or activations that are missing.
    """

    def __init__(
        self,
        selection: str = "greedy",
        fraction: Fractions = 0.3,
        *,
        activations: Activations | None = None,
        reconstruct: bool = True,
        multiple_of: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.selection: Selection = check_selection(selection)
        self.fraction = _checked(fraction)
        self.activations, self.reconstruct, self.seed = activations, reconstruct, seed
        if multiple_of < 1:
            raise SettingsError(f"multiple_of: expected 1 or more, found {multiple_of}")
        self.multiple_of = multiple_of
        if reconstruct or selection in MEASURED:
            what = "reconstruct" if reconstruct else f"selection {selection!r}"
            if activations is None or activations.num_feeds < 1:
                raise SettingsError(f"{what} needs activations")

    def call(self, model: ir.Model) -> PruneResult:
        """Changes ``model`` in place."""
        original = model.clone()
        lift = LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)
        lifted = lift(model).modified
        found = find_channel_groups(model)
        counts = self._counts(found)
        if not any(counts):
            return PruneResult(model, lifted, blocked=found.blocked)
        if self.reconstruct and _give_biases(model, found):
            found = find_channel_groups(model)
        work = _Work(model, original, found, counts, self)
        try:
            groups = work.run()
        finally:
            work.close()
        masked = model.clone()
        cut_channels(model, found, np.flatnonzero(work.removed))
        return PruneResult(
            model,
            True,
            tuple(groups),
            found.blocked,
            tuple(work.refits.values()),
            masked,
            tuple(work.notes),
        )

    def _counts(self, found: ChannelMap) -> list[int]:
        """How many channels each group loses."""
        used: set[str] = set()
        counts = []
        for group in found.groups:
            share = self._share(group, used)
            count = len(group.channels)
            kept = count - round(share * count)
            multiple = self.multiple_of // gcd(self.multiple_of, _width(group, found))
            if share and 1 < multiple < count:
                kept = max(round(kept / multiple), 1) * multiple
            counts.append(count - min(max(kept, 1), count))
        if isinstance(self.fraction, Mapping):
            for pattern in self.fraction:
                if pattern not in used:
                    raise SettingsError(f"fraction: {pattern!r} matches no layer to be pruned")
        return counts

    def _share(self, group: ChannelGroup, used: set[str]) -> float:
        if not isinstance(self.fraction, Mapping):
            return self.fraction
        names = [str(producer.weight.name) for producer in group.producers]
        share: float | None = None
        for pattern, value in self.fraction.items():
            if any(fnmatchcase(name, pattern) for name in names):
                used.add(pattern)
                share = value if share is None else share
        return share or 0.0


class _Work:
    """The state of one call: which channels are removed so far."""

    def __init__(
        self,
        model: ir.Model,
        original: ir.Model,
        found: ChannelMap,
        counts: Sequence[int],
        settings: PruneChannels,
    ) -> None:
        self.model, self.found, self.settings = model, found, settings
        self.removed = np.zeros(int(found.number.max(initial=-1)) + 1, bool)
        self.refits: dict[str, Refit] = {}
        self.notes: list[str] = []
        self.generator = np.random.default_rng(settings.seed)
        self.counts = {g: n for g, n in zip(found.groups, counts, strict=True) if n}
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
        layers = [self.layers[use] for use in group.consumers if use in self.layers]
        measured = self._measure(layers) if self.originals is not None and layers else []
        chosen = self._choose(group, count, measured)
        self.removed[group.channels[chosen]] = True
        self._mask(group)
        if self.settings.reconstruct:
            for moments in measured:
                self._refit(moments)
        return PrunedGroup(
            name=group.name,
            num_channels=len(group.channels),
            num_removed=count,
            producers=tuple(str(use.weight.name) for use in group.producers),
            consumers=tuple(str(use.weight.name) for use in group.consumers),
        )

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

    def _choose(self, group: ChannelGroup, count: int, measured: list[LayerMoments]) -> Labels:
        how = self.settings.selection
        if how == "random":
            return random_removal(len(group.channels), count, self.generator)
        if how in MEASURED and not measured:
            self.notes.append(f"{group.name}: chosen by l2, the layers behind cannot be measured")
            how = "l2"
        if how in ("l1", "l2"):
            return smallest(self._norms(group, 1 if how == "l1" else 2), count)
        if how == "greedy" and self.settings.reconstruct:
            problems = [p for m in measured if (p := self._problem(m, group)) is not None]
            if problems:
                return greedy_refit_removal(problems, count)
        if how == "lasso" and self.settings.reconstruct:
            number = self.found.number
            return lasso_refit_removal(measured, self.removed, group.channels, number, count)
        gram, target = channel_grams(measured, group.channels, self.found.number)
        if how == "greedy":
            return greedy_removal(gram, count)
        return lasso_removal(gram, target, count)

    def _problem(self, moments: LayerMoments, group: ChannelGroup) -> RefitProblem | None:
        kept = ~self.removed[self.found.number[moments.layer.feature_labels]]
        return refit_problem(moments, kept, group.channels, self.found.number)

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


def _width(group: ChannelGroup, found: ChannelMap) -> int:
    """Outputs of the layer that makes them for each channel of a group: a head's, for instance."""
    labels = group.producers[0].labels
    return int(np.isin(found.number[labels], group.channels).sum()) // len(group.channels)


def _give_biases(model: ir.Model, found: ChannelMap) -> bool:
    """Gives the layers behind channels a bias of zeros where they have none, and one of their own
    where they share it."""
    given = False
    for use in found.consumers:
        node = use.node
        if node.op_type not in ("Conv", "Gemm"):
            continue
        bias = node.inputs[2] if len(node.inputs) > 2 else None
        array, weight = constant_of(bias), constant_of(use.weight)
        if weight is None or (bias is not None and (array is None or len(bias.uses()) == 1)):
            continue
        name = f"{use.weight.name}.bias" if bias is None else str(bias.name)
        if array is None:
            outputs = weight.shape[0] if node.op_type == "Conv" else weight.shape[1 - use.axis]
            array = np.zeros(outputs, weight.dtype)
        add_initializer(model, node, 2, array, name)
        given = True
    return given


def _checked(fraction: Fractions) -> Fractions:
    values = fraction.values() if isinstance(fraction, Mapping) else [fraction]
    for value in values:
        if not 0 <= value < 1:
            raise SettingsError(f"fraction: expected 0 or more and less than 1, found {value}")
    return dict(fraction) if isinstance(fraction, Mapping) else fraction
