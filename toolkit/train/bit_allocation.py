# SPDX-License-Identifier: Apache-2.0
"""How many points, or bits, each tensor gets under a budget of bytes.

The published rule gives points in proportion to the norm of the gradient (Polino, Pascanu, Alistarh
2018, "Model compression via distillation and quantization", section 4). The Lagrangian one takes,
of all choices, those that minimise cost + multiplier * bytes, by which no choice of as few bytes
costs less (Everett 1963; Shoham and Gersho 1988, "Efficient bit allocation for an arbitrary set of
quantizers"), and spends what is left by exchanges.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import torch
from torch import nn

from passes.errors import SchemeError
from passes.schemes import FitContext, Parameters, Scheme
from toolkit.errors import InputError
from toolkit.train.tensor_loader import Loader, move
from toolkit.train.weight_arrays import array_of, channel_axes, parameter_of, put

if TYPE_CHECKING:
    from toolkit.train.task import Task


@dataclass(frozen=True)
class Choice:
    """One way to store a tensor: what it takes and what it costs (for example, loss)."""

    points: int
    num_bytes: float
    cost: float


Choices = Mapping[str, Sequence[Choice]]


def gradient_norms(
    model: nn.Module, task: Task, data: Loader, names: Iterable[str], batches: int = 10
) -> dict[str, float]:
    """Mean Euclidean norm of the gradient of each parameter over the first batches."""
    wanted = list(names)
    totals = dict.fromkeys(wanted, 0.0)
    device = next(model.parameters()).device
    count = 0
    for batch, _ in data.batches(0):
        if count == batches:
            break
        model.zero_grad()
        batch = move(batch, device)
        task.loss_of(task.outputs(model, batch), batch).mean().backward()
        for name in wanted:
            gradient = parameter_of(model, name).grad
            totals[name] += 0.0 if gradient is None else float(gradient.norm())
        count += 1
    model.zero_grad()
    return {name: total / count for name, total in totals.items()}


def measured_choices(
    model: nn.Module,
    task: Task,
    data: Loader,
    schemes: Mapping[str, Callable[[int], Scheme]],
    points: Sequence[int] = (2, 4, 8, 16, 32, 64, 128, 256),
) -> dict[str, list[Choice]]:
    """What each number of points takes and costs for each parameter alone: bytes of its scheme, and
    how much the mean loss over ``data`` rises.

    Args:
        model: Float; it is left as it was.
        task: Its loss.
        data: Not the test data.
        schemes: Parameter name -> number of points -> scheme.
        points: Numbers to try.

    Raises:
        InputError: a scheme cannot be fitted.
    """
    from toolkit.nn.stored_size import parameters_bits

    axes = channel_axes(model)
    device = next(model.parameters()).device
    before = task.evaluate(model, data, device).loss
    found: dict[str, list[Choice]] = {}
    for name, scheme in schemes.items():
        weight = parameter_of(model, name)
        kept = weight.detach().clone()
        array = array_of(weight)
        found[name] = []
        for number in points:
            try:
                fitted: Parameters = scheme(number).fit(array, FitContext(channel_axis=axes[name]))
            except SchemeError as error:
                raise InputError(f"bit allocation: {name}: {error}") from error
            put(weight, fitted.decode())
            cost = task.evaluate(model, data, device).loss - before
            found[name].append(Choice(number, parameters_bits(fitted) / 8, cost))
        with torch.no_grad():
            weight.copy_(kept)
    return found


def proportional(choices: Choices, norms: Mapping[str, float], budget: float) -> dict[str, Choice]:
    """Points in proportion to the gradient's norm, as many as the budget allows.

    Each tensor takes the largest choice of at most its share of points, or its smallest one.

    Raises InputError where the smallest choices exceed the budget.
    """
    _check(choices, budget)

    def at(factor: float) -> dict[str, Choice]:
        taken = {}
        for name, listed in choices.items():
            ordered = sorted(listed, key=lambda choice: choice.points)
            fitting = [c for c in ordered if c.points <= factor * norms[name]]
            taken[name] = fitting[-1] if fitting else ordered[0]
        return taken

    factors = sorted({c.points / norms[n] for n, listed in choices.items() for c in listed})
    best = at(0.0)
    for factor in factors:
        taken = at(factor * (1 + 1e-12))
        if bytes_of(taken) > budget:
            break
        best = taken
    return best


def lagrangian(choices: Choices, budget: float) -> dict[str, Choice]:
    """The least total cost under a budget of bytes: over the lower convex hulls of the choices,
    and then by exchanges of one or two of them for what whole choices leave of the budget.

    Raises InputError where the smallest choices exceed the budget.
    """
    _check(choices, budget)
    taken = {name: _hull(listed) for name, listed in choices.items()}
    place = dict.fromkeys(taken, 0)
    spent = sum(hull[0].num_bytes for hull in taken.values())
    steps = sorted(
        (
            (after.cost - before.cost) / (after.num_bytes - before.num_bytes),
            name,
            index + 1,
            after.num_bytes - before.num_bytes,
        )
        for name, hull in taken.items()
        for index, (before, after) in enumerate(zip(hull, hull[1:], strict=False))
    )
    for _, name, index, more in steps:  # steepest first; along a hull in its order
        if place[name] == index - 1 and spent + more <= budget:
            place[name], spent = index, spent + more
    found = {name: hull[place[name]] for name, hull in taken.items()}
    return _exchanged(choices, found, budget)


def bytes_of(taken: Mapping[str, Choice]) -> float:
    """Bytes of an allocation."""
    return sum(choice.num_bytes for choice in taken.values())


def cost_of(taken: Mapping[str, Choice]) -> float:
    """Cost of an allocation."""
    return sum(choice.cost for choice in taken.values())


def _check(choices: Choices, budget: float) -> None:
    least = sum(min(choice.num_bytes for choice in listed) for listed in choices.values())
    if least > budget:
        raise InputError(
            f"bit allocation: a budget of {budget:.0f} bytes, the least that the choices take is "
            f"{least:.0f}"
        )


def _hull(listed: Sequence[Choice]) -> list[Choice]:
    """The lower convex hull of cost over bytes, as far as the cost falls."""
    hull: list[Choice] = []
    for choice in sorted(listed, key=lambda c: (c.num_bytes, c.cost)):
        if hull and choice.cost >= hull[-1].cost:
            continue
        while len(hull) > 1 and _above(hull[-2], hull[-1], choice):
            hull.pop()
        hull.append(choice)
    return hull


def _above(first: Choice, middle: Choice, last: Choice) -> bool:
    run, whole = middle.num_bytes - first.num_bytes, last.num_bytes - first.num_bytes
    return (middle.cost - first.cost) * whole >= (last.cost - first.cost) * run


def _exchanged(choices: Choices, found: dict[str, Choice], budget: float) -> dict[str, Choice]:
    """Changes the choices of one tensor, or of two at once, while that lowers the cost within the
    budget: what whole choices lose against the hulls."""
    names = list(choices)
    improved = True
    while improved:
        improved = False
        for first, second in product(names, names):
            if second < first:
                continue
            others = bytes_of(found) - found[first].num_bytes
            now = found[first].cost
            pairs = [(choice, choice) for choice in choices[first]]
            if second != first:
                others -= found[second].num_bytes
                now += found[second].cost
                pairs = list(product(choices[first], choices[second]))
            for one, two in pairs:
                single = one is two and first == second
                size = one.num_bytes + (0.0 if single else two.num_bytes)
                cost = one.cost + (0.0 if single else two.cost)
                if cost < now - 1e-15 and others + size <= budget:
                    found = {**found, first: one, second: two}
                    now, improved = cost, True
    return found
