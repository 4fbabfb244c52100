# SPDX-License-Identifier: Apache-2.0
"""Units of a chain of layers that are given up: the layers become smaller, the function stays.

A unit is an output of a dense layer or a filter of a convolution. It is dead where nothing goes in
and no bias gives it a value, or where nothing goes out of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from passes.errors import SchemeError
from toolkit.nn.compressed import attach
from toolkit.nn.latent import Latent

Layer: TypeAlias = Any  # nn.Linear | nn.Conv2d
_PASSING = (nn.ReLU, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.Dropout, nn.Identity)


@dataclass(frozen=True)
class _Joint:
    """Two layers with nothing between that mixes units; each unit is ``places`` inputs of the
    second one."""

    name: str
    first: Layer
    second: Layer
    places: int


def alive_units(model: nn.Sequential) -> dict[str, Tensor]:
    """Which units of every layer but the last one count, by the layer's name: bool [units].

    Raises:
        SchemeError: the model is no chain of dense layers and convolutions.
    """
    was_training = model.training
    model.eval()
    joints, found = list(_joints(model)), dict[str, Tensor]()
    inputs: Tensor | None = None
    with torch.no_grad():
        for joint in joints:
            weight = joint.first.weight.flatten(1) != 0
            if inputs is not None:
                weight = weight & inputs.repeat_interleave(weight.shape[1] // len(inputs))
            alive = weight.any(1)
            if joint.first.bias is not None:
                alive |= joint.first.bias != 0
            inputs = found[joint.name] = alive
        later: Tensor | None = None
        for joint in reversed(joints):
            weight = joint.second.weight.flatten(1) != 0
            if later is not None:
                weight = weight & later[:, None]
            units = len(found[joint.name])
            found[joint.name] &= weight.reshape(len(weight), units, -1).any(2).any(0)
            later = found[joint.name]
    model.train(was_training)
    return found


def strongest_units(model: nn.Sequential, widths: Mapping[str, int]) -> dict[str, Tensor]:
    """The ``widths[name]`` units of each layer with the largest product of the norms of what goes
    in and what goes out: bool [units].

    Li et al. 2017, "Pruning filters for efficient ConvNets", section 3.1, counts what goes in.

    Raises:
        SchemeError: the model is no chain of layers, or has no such layer or not so many units.
    """
    joints = {joint.name: joint for joint in _joints(model)}
    found = {}
    for name, width in widths.items():
        if name not in joints or not 0 < width <= len(joints[name].first.weight):
            raise SchemeError(f"{name}: no layer before the last one that has {width} units")
        joint = joints[name]
        with torch.no_grad():
            units = len(joint.first.weight)
            before = joint.first.weight.flatten(1).norm(dim=1)
            after = joint.second.weight.reshape(len(joint.second.weight), units, -1)
            score = before * after.square().sum((0, 2)).sqrt()
        mask = torch.zeros(units, dtype=torch.bool)
        mask[score.argsort(descending=True, stable=True)[:width]] = True
        found[name] = mask
    return found


def keep_units(model: nn.Sequential, kept: Mapping[str, Tensor]) -> nn.Sequential:
    """Removes all units but those in ``kept`` (bool [units] by the layer's name), in place.

    At least one unit of each layer stays. Latents are divided with their weights.

    Raises:
        SchemeError: the model is no chain of layers, a name is no layer before the last one, or a
            weight has a compressed form other than a `Latent` with one step.
    """
    joints = {joint.name: joint for joint in _joints(model)}
    for name, mask in kept.items():
        if name not in joints or len(mask) != len(joints[name].first.weight):
            raise SchemeError(f"{name}: no layer before the last one with {len(mask)} units")
        index = mask.nonzero().flatten() if bool(mask.any()) else torch.tensor([0])
        joint = joints[name]
        columns = index if isinstance(joint.second, nn.Conv2d) else _spread(index, joint.places)
        _select(joint.first, "weight", 0, index)
        if joint.first.bias is not None:
            _select(joint.first, "bias", 0, index)
        _select(joint.second, "weight", 1, columns)
        if isinstance(joint.first, nn.Conv2d):
            joint.first.out_channels = len(index)
        else:
            joint.first.out_features = len(index)
        if isinstance(joint.second, nn.Conv2d):
            joint.second.in_channels = len(index)
        else:
            joint.second.in_features = len(columns)
    return model


def _spread(index: Tensor, places: int) -> Tensor:
    return (index[:, None] * places + torch.arange(places)).flatten()


def _joints(model: nn.Sequential) -> Iterator[_Joint]:
    before: tuple[str, Layer] | None = None
    for name, module in model.named_children():
        if isinstance(module, nn.Linear | nn.Conv2d):
            if isinstance(module, nn.Conv2d) and module.groups != 1:
                raise SchemeError(f"{name}: convolutions in groups cannot lose units here")
            if before is not None:
                units = len(before[1].weight)
                inputs = module.weight.shape[1]
                if inputs % units:
                    raise SchemeError(f"{name}: {inputs} inputs are not those of {before[0]}")
                yield _Joint(before[0], before[1], module, inputs // units)
            before = name, module
        elif not isinstance(module, (*_PASSING, nn.Flatten)):
            raise SchemeError(f"{name}: a {type(module).__name__} cannot lose units here")


def _select(layer: Layer, name: str, axis: int, index: Tensor) -> None:
    if not parametrize.is_parametrized(layer, name):
        old = getattr(layer, name)
        setattr(layer, name, nn.Parameter(old.detach().index_select(axis, index).clone()))
        return
    entries = layer.parametrizations[name]
    form = entries[0]
    if not isinstance(form, Latent):
        raise SchemeError(f"{name}: a {type(form).__name__} cannot lose units")
    latent = entries.original.detach().index_select(axis, index).clone()
    average = None if form.average is None else form.average.index_select(axis, index).clone()
    weight = getattr(layer, name).detach().index_select(axis, index).clone()
    parametrize.remove_parametrizations(layer, name, leave_parametrized=True)
    delattr(layer, name)
    layer.register_parameter(name, nn.Parameter(weight))
    attach(layer, name, form.resized(tuple(weight.shape)))
    entries = layer.parametrizations[name]
    with torch.no_grad():
        entries.original.copy_(latent)
    if average is not None:
        entries[0].average = average
