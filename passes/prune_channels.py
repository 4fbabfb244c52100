# SPDX-License-Identifier: Apache-2.0
"""Removes channels from convolutions and dense layers, and refits the layers behind them.

Greedy selection: Luo, Wu, Lin, "ThiNet", ICCV 2017. Lasso selection and reconstruction: He, Zhang,
Sun, "Channel Pruning for Accelerating Very Deep Neural Networks", ICCV 2017. Norms of filters: Li
et al., "Pruning Filters for Efficient ConvNets", ICLR 2017.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import gcd
from typing import Literal, get_args

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import LiftConstantsToInitializersPass

from passes.activations import Activations
from passes.channels.allocation import shares_by_sensitivity
from passes.channels.groups import BlockedLayer, ChannelGroup, ChannelMap, find_channel_groups
from passes.channels.refit import Refit
from passes.channels.selection import MEASURED, Selection, check_selection
from passes.channels.surgery import add_initializer, cut_channels
from passes.channels.sweep import ChannelSweep, PrunedGroup, SweepSettings
from passes.channels.trace import constant_of
from passes.errors import SettingsError

Allocation = Literal["equal", "sensitivity"]
Fractions = float | Mapping[str, float]


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
        allocation: ``equal``: each group loses its share. ``sensitivity``: together they lose as
            many channels, each as many as the outputs allow (this needs ``activations``).
        activations: Runs the model on calibration data.
        reconstruct: Whether to refit.
        multiple_of: Numbers of channels that stay are rounded to the nearest multiple of this,
            where there are more: processors work on 8 or 16 at a time. What goes as one, such as an
            attention head, counts as the channels that it has.
        seed: Of the random selection and of the places that are sampled.

    Raises:
        SettingsError: a selection or an allocation that does not exist, a fraction outside of its
            range, a pattern that matches nothing, or activations that are missing.
        SchemeError: outputs that are not finite, where sensitivity is measured.
    """

    def __init__(
        self,
        selection: str = "greedy",
        fraction: Fractions = 0.3,
        *,
        allocation: str = "equal",
        activations: Activations | None = None,
        reconstruct: bool = True,
        multiple_of: int = 1,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.selection: Selection = check_selection(selection)
        self.fraction = _checked(fraction)
        if allocation not in get_args(Allocation):
            known = ", ".join(get_args(Allocation))
            raise SettingsError(f"allocation {allocation!r}: expected one of {known}")
        self.allocation = allocation
        self.settings = SweepSettings(self.selection, activations, reconstruct, seed)
        if multiple_of < 1:
            raise SettingsError(f"multiple_of: expected 1 or more, found {multiple_of}")
        self.multiple_of = multiple_of
        if reconstruct or selection in MEASURED or allocation == "sensitivity":
            what = f"selection {selection!r}" if selection in MEASURED else "reconstruct"
            if allocation == "sensitivity":
                what = "allocation 'sensitivity'"
            if activations is None or activations.num_feeds < 1:
                raise SettingsError(f"{what} needs activations")

    def call(self, model: ir.Model) -> PruneResult:
        """Changes ``model`` in place."""
        original = model.clone()
        lift = LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)
        lifted = lift(model).modified
        found = find_channel_groups(model)
        if not any(self._counts(found, self._shares(found)).values()):
            return PruneResult(model, lifted, blocked=found.blocked)
        if self.settings.reconstruct and _give_biases(model, found):
            found = find_channel_groups(model)
        shares = self._shares(found)
        if self.allocation == "sensitivity":
            shares = shares_by_sensitivity(model, original, found, shares, self.settings)
        counts = self._counts(found, shares)
        work = ChannelSweep(model, original, found, counts, self.settings)
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

    def _counts(
        self, found: ChannelMap, shares: Mapping[ChannelGroup, float]
    ) -> dict[ChannelGroup, int]:
        """How many channels each group loses."""
        counts = {}
        for group, share in shares.items():
            count = len(group.channels)
            kept = count - round(share * count)
            multiple = self.multiple_of // gcd(self.multiple_of, _width(group, found))
            if share and 1 < multiple < count:
                kept = max(round(kept / multiple), 1) * multiple
            counts[group] = count - min(max(kept, 1), count)
        return counts

    def _shares(self, found: ChannelMap) -> dict[ChannelGroup, float]:
        """The share that is asked for of each group."""
        used: set[str] = set()
        shares = {group: self._share(group, used) for group in found.groups}
        if isinstance(self.fraction, Mapping):
            for pattern in self.fraction:
                if pattern not in used:
                    raise SettingsError(f"fraction: {pattern!r} matches no layer to be pruned")
        return shares

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
