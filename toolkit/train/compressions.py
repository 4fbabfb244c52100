# SPDX-License-Identifier: Apache-2.0
"""Which scheme compresses which parameters of a model, alone or together, and their fits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from passes.errors import SchemeError
from passes.schemes import FitContext, LowRank, Parameters, Scheme, fit_jointly
from passes.stages import SCHEMES, check_joint, nested
from toolkit.errors import InputError
from toolkit.train.weight_arrays import channel_axes, matched


@dataclass(frozen=True)
class Compression:
    """One compression of one or more parameters.

    Attributes:
        scheme: What they are fitted by; a `Sum` for additive combinations.
        joint: Names of the stages that all of the parameters share, as in recipes; none fits each
            parameter alone.
    """

    scheme: Scheme
    joint: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.joint:
            try:
                check_joint(self.scheme, self.joint)
            except SchemeError as error:
                raise InputError(f"joint: {error}") from error


Rules = Mapping[str, Scheme | Compression]


class CompressionPlan:
    """The compressions of a model's parameters.

    Args:
        method: Its name, for errors.
        model: Whose parameters are compressed.
        rules: Glob pattern of parameter names -> scheme or `Compression`; the first that matches
            counts. Parameters that no pattern matches are left alone.
        positions: Parameter name -> output positions of its layer, for ranks by multiply-adds.

    Raises:
        InputError: no rules, or one that matches nothing.
    """

    def __init__(
        self,
        method: str,
        model: nn.Module,
        rules: Rules,
        positions: Mapping[str, int] | None = None,
    ) -> None:
        if not rules:
            raise InputError(f"{method}: give at least one compression")
        wrapped = {
            pattern: rule if isinstance(rule, Compression) else Compression(rule)
            for pattern, rule in rules.items()
        }
        self.method, self._positions = method, positions or {}
        self._axes = channel_axes(model)
        self.rules = matched(method, wrapped, model)
        self._groups: list[tuple[Compression, list[str]]] = []
        for rule in {id(rule): rule for rule in wrapped.values()}.values():
            members = [name for name, mine in self.rules.items() if mine is rule]
            if rule.joint:
                self._groups.append((rule, members))
            else:
                self._groups.extend((rule, [name]) for name in members)

    @property
    def names(self) -> list[str]:
        """The parameters that are compressed."""
        return list(self.rules)

    @property
    def counts_positions(self) -> bool:
        """Whether a scheme asks for output positions."""
        return any(
            isinstance(part, LowRank) and part.cost == "flops"
            for rule in self.rules.values()
            for part in nested(rule.scheme)
        )

    def fit(
        self,
        arrays: Mapping[str, np.ndarray],
        mu: float = 1.0,
        previous: Mapping[str, Parameters] | None = None,
        seed: int = 0,
    ) -> dict[str, Parameters]:
        """Fits every compression to arrays by parameter name.

        Raises InputError, naming the parameter, where a scheme cannot be fitted.
        """
        found: dict[str, Parameters] = {}
        for rule, names in self._groups:
            contexts = {
                name: FitContext(
                    channel_axis=self._axes[name],
                    mu=mu,
                    seed=seed,
                    previous=(previous or {}).get(name),
                    positions=self._positions.get(name),
                )
                for name in names
            }
            shared = {SCHEMES[stage] for stage in rule.joint}
            try:
                found.update(
                    fit_jointly(rule.scheme, shared, {n: arrays[n] for n in names}, contexts)
                )
            except SchemeError as error:
                raise InputError(f"{self.method}: {error}") from error
        return {name: found[name] for name in self.rules}


def layer_positions(model: nn.Module, run: Any) -> dict[str, int]:
    """Output positions for one sample of each layer with a weight: 1 for a dense layer, height
    times width for a convolution, by the weight's name. ``run`` computes one sample."""
    found: dict[str, int] = {}

    def watch(name: str, is_convolution: bool) -> Any:
        def note(module: nn.Module, inputs: Sequence[Any], output: torch.Tensor) -> None:
            sizes = output.shape[2:] if is_convolution else output.shape[1:-1]
            found[name] = found.get(name, 0) + int(np.prod(sizes))

        return note

    hooks = []
    for name, module in model.named_modules():
        is_convolution = isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d)
        if is_convolution or isinstance(module, nn.Linear):
            hooks.append(module.register_forward_hook(watch(f"{name}.weight", is_convolution)))
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            run()
    finally:
        model.train(was_training)
        for hook in hooks:
            hook.remove()
    return found
