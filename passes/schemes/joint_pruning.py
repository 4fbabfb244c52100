# SPDX-License-Identifier: Apache-2.0
"""Pruning of one weight or of several with one budget: scores, a selection, and what it leaves.

With one budget the weights are one vector, as in the joint view of Idelbayev and Carreira-Perpiñán
2020, "A flexible, extensible software framework for model compression based on the LC algorithm",
section 4.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from passes.errors import SchemeError
from passes.schemes.base import FitContext
from passes.schemes.importance import scores_of
from passes.schemes.lossless import Lossless
from passes.schemes.projections import (
    hard_threshold,
    l1_ball,
    largest,
    largest_of_each,
    soft_threshold,
)
from passes.schemes.prune_groups import Groups, groups_of, input_axis
from passes.schemes.prune_parameters import PruneParameters
from passes.schemes.weight_values import finite_float32

if TYPE_CHECKING:
    from passes.schemes.pruning import Prune


def prune_jointly(
    weights: Mapping[str, np.ndarray],
    scheme: Prune,
    contexts: Mapping[str, FitContext] | None = None,
) -> dict[str, PruneParameters]:
    """Prunes several weights with one amount for all of their groups together.

    Of equal scores those of the first weight, in the order of the names, are kept. Penalties,
    thresholds and patterns come out as for each weight alone, mu being that of its context.

    Args:
        weights: name -> float array of any shape.
        scheme: What to prune; ``keep``, ``fraction``, ``sparsity`` and ``l1_radius`` count groups
            or magnitudes of all weights.
        contexts: name -> context; those left out are plain.

    Returns:
        name -> parameters, in the order of ``weights``; none for no weights.

    Raises:
        SchemeError: as `Prune.fit`; the message names the weight.
    """
    tensors: list[_Tensor] = []
    for name in sorted(weights):
        context = (contexts or {}).get(name) or FitContext()
        with _naming(name):
            tensors.append(_Tensor.of(weights[name], scheme, context, len(tensors)))
    factors = _factors(tensors, scheme)
    fitted = {}
    for name, tensor, factor in zip(sorted(weights), tensors, factors, strict=True):
        with _naming(name):
            fitted[name] = _finished(tensor, factor, scheme)
    return {name: fitted[name] for name in weights}


@contextmanager
def _naming(name: str) -> Iterator[None]:
    """Puts the name of the weight, if it has one, before the text of an error."""
    try:
        yield
    except SchemeError as error:
        if not name:
            raise
        raise SchemeError(f"{name}: {error}") from error


@dataclass(frozen=True, eq=False)
class _Tensor:
    """A weight and its groups.

    Attributes:
        values: float32, the weight with zeros where the context's mask excludes it.
        allowed: bool [groups]: whether the mask leaves any of a group.
        scores: float64 [groups].
        importance: float64, the weight's shape: of each squared error; None where all are 1.
    """

    weight: np.ndarray
    values: np.ndarray
    context: FitContext
    groups: Groups
    allowed: np.ndarray
    scores: np.ndarray
    importance: np.ndarray | None

    @classmethod
    def of(cls, weight: np.ndarray, scheme: Prune, context: FitContext, place: int) -> _Tensor:
        """Scores the groups of a weight; ``place`` tells apart the random scores of several."""
        values, mask = finite_float32(weight), context.mask
        groups = groups_of(weight.shape, scheme.granularity, context.channel_axis, scheme.block)
        allowed = np.ones(groups.count, bool)
        if mask is not None:
            if mask.shape != weight.shape:
                raise SchemeError(f"prune: a mask of {mask.shape} for a weight of {weight.shape}")
            values = np.where(mask, values, np.float32(0))
            allowed = groups.sums(mask) > 0
        importance = None
        if context.importance is not None:
            importance = np.broadcast_to(np.asarray(context.importance, np.float64), weight.shape)
            if not (np.isfinite(importance).all() and (importance > 0).all()):
                raise SchemeError("prune: the importance of errors must be positive and finite")
        kind = "l2" if scheme.goes_by_norm else scheme.importance
        scores = scores_of(values, groups, kind, importance, (context.seed, place))
        return cls(weight, values, context, groups, allowed, scores, importance)


def _factors(tensors: Sequence[_Tensor], scheme: Prune) -> list[np.ndarray]:
    """What each group of each weight is multiplied with, 0 to 1, float64 [groups]."""
    if scheme.l1_radius is not None:
        return _inside_the_ball(tensors, scheme.l1_radius)
    if scheme.l1_penalty is not None:
        penalty = scheme.l1_penalty
        return [
            _ratio(soft_threshold(m, penalty, tensor.context.mu, h), m)
            for tensor in tensors
            for m, h in [_magnitudes(tensor)]
        ]
    if scheme.l0_penalty is not None:
        penalty = scheme.l0_penalty
        return [hard_threshold(t.scores, penalty, t.context.mu).astype(np.float64) for t in tensors]
    if scheme.threshold is not None:
        return [(t.scores >= scheme.threshold).astype(np.float64) for t in tensors]
    if scheme.pattern is not None:
        return [_of_each(tensor, *scheme.pattern) for tensor in tensors]
    kept = scheme.amount_kept(sum(tensor.groups.count for tensor in tensors))
    scores = [np.where(t.allowed, t.scores, -np.inf) for t in tensors]
    chosen = largest(np.concatenate(scores or [np.zeros(0)]), kept).astype(np.float64)
    return _divided(chosen, tensors)


def _of_each(tensor: _Tensor, number: int, length: int) -> np.ndarray:
    """N of M: ``number`` of each ``length`` neighbours along the input channels."""
    shape = tensor.weight.shape
    if not shape:
        return np.full(1, float(number > 0))
    scores = np.where(tensor.allowed, tensor.scores, -np.inf).reshape(shape)
    axis = input_axis(len(shape), tensor.context.channel_axis)
    chosen = largest_of_each(np.moveaxis(scores, axis, -1), number, length)
    return np.moveaxis(chosen, -1, axis).reshape(-1).astype(np.float64)


def _inside_the_ball(tensors: Sequence[_Tensor], radius: float) -> list[np.ndarray]:
    pairs = [_magnitudes(tensor) for tensor in tensors]
    magnitudes = np.concatenate([m for m, _ in pairs] or [np.zeros(0)])
    weighted = any(tensor.importance is not None for tensor in tensors)
    spread = [np.broadcast_to(np.asarray(h, np.float64), m.shape) for m, h in pairs]
    importance = np.concatenate(spread) if weighted else 1.0
    return _divided(_ratio(l1_ball(magnitudes, radius, importance), magnitudes), tensors)


def _magnitudes(tensor: _Tensor) -> tuple[np.ndarray, np.ndarray | float]:
    """Plain magnitudes of the groups, and the weights of their squared errors."""
    if tensor.importance is None:
        return tensor.scores, 1.0
    if tensor.groups.numbers is not None:
        raise SchemeError("prune: l1 of groups has no closed form under importances of errors")
    return np.abs(tensor.values.reshape(-1), dtype=np.float64), tensor.importance.reshape(-1)


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.asarray(np.divide(part, whole, out=np.zeros(whole.shape), where=whole > 0))


def _divided(values: np.ndarray, tensors: Sequence[_Tensor]) -> list[np.ndarray]:
    ends = np.cumsum([tensor.groups.count for tensor in tensors])
    return np.split(values, ends[:-1]) if tensors else []


def _finished(tensor: _Tensor, factors: np.ndarray, scheme: Prune) -> PruneParameters:
    """The inner scheme's fit of what the factors leave."""
    spread = tensor.groups.spread(factors)
    mask = (spread > 0) & (tensor.values != 0)
    if (factors < 1).any() and scheme.shrinks:
        kept = (tensor.values * spread).astype(tensor.weight.dtype)
        mask &= kept != 0
    else:
        kept = tensor.weight
    pruned = np.where(mask, kept, np.zeros((), tensor.weight.dtype))
    previous = tensor.context.previous
    if isinstance(previous, PruneParameters):
        previous = previous.inner
    context = replace(tensor.context, mask=mask, previous=previous)
    inner = (scheme.inner or Lossless()).fit(pruned, context)
    fitted = PruneParameters(inner, mask)
    if fitted.decode()[~mask].any():
        raise SchemeError(f"prune: scheme {inner.name} does not keep zeros")
    return fitted
