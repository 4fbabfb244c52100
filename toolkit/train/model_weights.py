# SPDX-License-Identifier: Apache-2.0
"""The parameters of a torch model as the rules of recipes see the weights of an ONNX model."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir
from torch import nn

from passes.errors import SettingsError
from passes.select_weights import Role, Weight
from passes.settings import Recipe, Rule, WeightSettings
from toolkit.errors import InputError
from toolkit.train.compressions import Compression
from toolkit.train.weight_arrays import channel_axes

_LARGE = (
    4096  # a float tensor that no listed module multiplies with counts as a weight from here on
)
_KINDS: list[tuple[tuple[type[nn.Module], ...], tuple[str, ...], Role]] = [
    ((nn.Linear, nn.Bilinear), ("Gemm", "MatMul"), "weight"),
    ((nn.Conv1d, nn.Conv2d, nn.Conv3d), ("Conv",), "weight"),
    ((nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d), ("ConvTranspose",), "weight"),
    ((nn.Embedding, nn.EmbeddingBag), ("Gather",), "embedding"),
    ((nn.LSTM, nn.LSTMCell), ("LSTM",), "recurrent"),
    ((nn.GRU, nn.GRUCell), ("GRU",), "recurrent"),
    ((nn.RNN, nn.RNNCell), ("RNN",), "recurrent"),
    ((nn.MultiheadAttention,), ("MatMul",), "weight"),
]


def weights_of(model: nn.Module) -> list[Weight]:
    """Every parameter, by its name in the state dict, with its role, the operators that use it and
    the module it belongs to as the node's name."""
    found, axes, seen = [], channel_axes(model), set[int]()
    for prefix, module in model.named_modules():
        operators, role = _kind(module)
        for name, parameter in module.named_parameters(prefix, recurse=False):
            if id(parameter) in seen:
                continue
            seen.add(id(parameter))
            shape = tuple(parameter.shape)
            mine: Role = role if len(shape) > 1 else "minor"
            if mine == "minor" and len(shape) > 1 and parameter.numel() >= _LARGE:
                mine = "weight"
            found.append(
                Weight(
                    name=name,
                    value=ir.Value(name=name),
                    shape=shape,
                    dtype=ir.DataType.FLOAT,
                    role=mine,
                    op_types=operators if len(shape) > 1 else (),
                    nodes=(prefix,),
                    channel_axis=axes[name],
                    is_convolution="Conv" in operators and len(shape) > 2,
                )
            )
    return found


def _kind(module: nn.Module) -> tuple[tuple[str, ...], Role]:
    for kinds, operators, role in _KINDS:
        if isinstance(module, kinds):
            return operators, role
    return (), "minor"


def settings_of(model: nn.Module, rules: Sequence[Rule], where: str) -> dict[str, WeightSettings]:
    """Parameter name -> settings of the first rule that applies; the others are left out.

    Raises InputError for a rule that applies to nothing.
    """
    keep = WeightSettings(scheme="keep")
    recipe = Recipe(version=1, rules=tuple(rules), default=keep, minor=keep)
    try:
        assigned = recipe.assign(weights_of(model))
    except SettingsError as error:
        raise InputError(f"{where}: {str(error).removeprefix('recipe, ')}") from error
    return {name: settings for name, settings in assigned.items() if settings.scheme != "keep"}


def compressions_of(model: nn.Module, rules: Sequence[Rule], where: str) -> dict[str, Compression]:
    """Parameter name -> compression; joint ones of a rule are the same object."""
    groups: dict[tuple[str, str], Compression] = {}
    found = {}
    for name, settings in settings_of(model, rules, where).items():
        made = Compression(settings.built(), settings.joint)
        found[name] = groups.setdefault(settings.group_key, made) if settings.joint else made
    return found
