# SPDX-License-Identifier: Apache-2.0
"""Training at quantised weights: quantized distillation and differentiable quantization.

Polino, Pascanu, Alistarh 2018, "Model compression via distillation and quantization", sections 3
and 4. Both are about the weights; put `Distillation` beside them for the loss.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn
from torch.nn.utils import parametrize

from passes.errors import SchemeError
from passes.schemes import Scheme
from toolkit.errors import InputError
from toolkit.train.callback import Callback
from toolkit.train.weight_arrays import channel_axes, matched

if TYPE_CHECKING:
    from toolkit.nn import Compressed
    from toolkit.train.trainer import Trainer


class QuantizedDistillation(Callback):
    """Takes gradients at the quantised weights and gives them to the full-precision ones.

    The weights of the model get the form `toolkit.nn.Fitted`, which quantises anew at each step, in
    evaluation and at the end.

    Args:
        rules: Glob pattern of parameter names -> scheme; the first that matches counts.
        gradient: ``straight_through``, or ``truncated``: none where a weight lies outside of the
            range of the values of its scheme.
        every: Steps after which the full-precision weights themselves are set to the quantised
            ones; None for never.
        leave_out: ``first`` and ``last`` weight (of at least two dimensions) of the model, which
            stay as they are.
        seed: Of stochastic rounding.

    Raises:
        InputError: an option out of range, or a pattern that matches nothing.
    """

    def __init__(
        self,
        rules: Mapping[str, Scheme],
        *,
        gradient: Literal["straight_through", "truncated"] = "straight_through",
        every: int | None = None,
        leave_out: tuple[str, ...] = (),
        seed: int = 0,
    ) -> None:
        if every is not None and every < 1:
            raise InputError(f"quantized_distillation: every: expected 1 or more, found {every}")
        check_left_out("quantized_distillation", leave_out)
        self.rules, self.gradient, self.every = dict(rules), gradient, every
        self.leave_out, self.seed = tuple(leave_out), seed
        self._names: list[str] = []

    def on_start(self, trainer: Trainer) -> None:
        """Gives the weights their form."""
        from toolkit.nn import Fitted

        axes = channel_axes(trainer.model)
        for name, scheme in chosen(
            "quantized_distillation", self.rules, trainer.model, self.leave_out
        ).items():
            form = _tried(
                lambda scheme=scheme, name=name: Fitted(
                    scheme, gradient=self.gradient, channel_axis=axes[name], seed=self.seed
                )
            )
            give_form("quantized_distillation", trainer.model, name, form)
            self._names.append(name)

    def after_step(self, trainer: Trainer) -> None:
        """Sets the weights to the quantised ones, where it is time."""
        if self.every is None or (trainer.step + 1) % self.every:
            return
        from toolkit.nn import originals

        with torch.no_grad():
            for _, original, form in originals(trainer.model):
                original.copy_(form.evaluation_weight(original))


class DifferentiableQuantization(Callback):
    """Learns the points that weights are quantised to; the weights themselves stay.

    The weights get the form `toolkit.nn.LearnedPoints`. Parameters that no pattern matches, such as
    biases, are trained as they are.

    Args:
        points: Glob pattern of parameter names -> number of points; the first that matches counts.
        scaling, granularity, group_size: What the points are multiplied with, as
            `passes.schemes.Scaled`.
        start: Points begin at ``quantiles`` or are ``uniform`` over the range.
        train_weights: Also hand gradients to the weights, straight through.
        leave_out: As for `QuantizedDistillation`.

    Raises:
        InputError: an option out of range, or a pattern that matches nothing.
    """

    def __init__(
        self,
        points: Mapping[str, int],
        *,
        scaling: Literal["absmax", "linear", "absnorm"] = "absmax",
        granularity: Literal["tensor", "row", "group", "bucket"] = "bucket",
        group_size: int | None = None,
        start: Literal["quantiles", "uniform"] = "quantiles",
        train_weights: bool = False,
        leave_out: tuple[str, ...] = (),
    ) -> None:
        check_left_out("differentiable_quantization", leave_out)
        self.points = dict(points)
        self._options: dict[str, Any] = {
            "scaling": scaling,
            "granularity": granularity,
            "group_size": group_size,
            "start": start,
        }
        self.train_weights, self.leave_out = train_weights, tuple(leave_out)
        self._names: list[str] = []

    def on_start(self, trainer: Trainer) -> None:
        """Gives the weights their form and places the points."""
        from toolkit.nn import LearnedPoints

        axes = channel_axes(trainer.model)
        for name, count in chosen(
            "differentiable_quantization", self.points, trainer.model, self.leave_out
        ).items():
            form = _tried(
                lambda count=count, name=name: LearnedPoints(
                    count, channel_axis=axes[name], **self._options
                )
            )
            original = give_form("differentiable_quantization", trainer.model, name, form)
            original.requires_grad_(self.train_weights)
            self._names.append(name)

    def after_step(self, trainer: Trainer) -> None:
        """Keeps the points in order, and what the optimizer knows of them beside them."""
        from toolkit.nn import LearnedPoints, originals

        for _, _, form in originals(trainer.model):
            if not isinstance(form, LearnedPoints):
                continue
            order = form.sort()
            state = trainer.optimizer.state.get(form.points, {})
            if order is None:
                continue
            for key, value in state.items():
                if isinstance(value, torch.Tensor) and value.shape == order.shape:
                    state[key] = value[order]


def check_left_out(method: str, names: tuple[str, ...]) -> None:
    """Raises InputError for anything but first and last."""
    for name in names:
        if name not in ("first", "last"):
            raise InputError(f"{method}: leave_out: expected first or last, found {name!r}")


def chosen(
    method: str, rules: Mapping[str, Any], model: nn.Module, leave_out: tuple[str, ...]
) -> dict[str, Any]:
    """Parameter name -> what the rules say, without the first or last weight where asked."""
    found = matched(method, rules, model)
    weights = [name for name, value in model.named_parameters() if value.ndim > 1]
    places = {"first": 0, "last": -1}
    left = {weights[places[side]] for side in leave_out} if weights else set()
    kept = {name: value for name, value in found.items() if name not in left}
    if not kept:
        raise InputError(f"{method}: no parameter is left")
    return kept


def give_form(method: str, model: nn.Module, name: str, form: Compressed) -> torch.Tensor:
    """Attaches ``form`` to a parameter by name; returns the tensor behind it. Raises InputError
    where the scheme does not fit."""
    from toolkit.nn import attach

    prefix, _, tensor = name.rpartition(".")
    module = model.get_submodule(prefix)
    if not hasattr(module, tensor) or parametrize.is_parametrized(module, tensor):
        raise InputError(f"{method}: {name}: has a compressed form already")
    try:
        attach(module, tensor, form)
    except SchemeError as error:
        raise InputError(f"{method}: {name}: {error}") from error
    lists: Any = module.parametrizations
    original: torch.Tensor = lists[tensor].original
    return original


def _tried(make: Any) -> Any:
    try:
        return make()
    except SchemeError as error:
        raise InputError(str(error)) from error
