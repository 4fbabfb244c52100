# SPDX-License-Identifier: Apache-2.0
"""One scheme for several weights: which of its stages they share, and how that is fitted.

Shared pruning has one budget, a shared codebook one set of values, shared low rank one cost; other
shared quantisers take the weights as one vector, so that they have one scale. This is the joint
view of Idelbayev and Carreira-Perpiñán 2020, "A flexible, extensible software framework for model
compression based on the LC algorithm", section 4. Stages that are not shared are fitted to each
weight alone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from passes.errors import SchemeError
from passes.schemes.base import FitContext, Parameters, Scheme
from passes.schemes.binary import Binary, Ternary
from passes.schemes.codebook import Codebook
from passes.schemes.joint_low_rank import factorize_jointly
from passes.schemes.joint_pruning import prune_jointly
from passes.schemes.lossless import Lossless
from passes.schemes.low_rank import LowRank
from passes.schemes.points import Points, PowerOfTwo
from passes.schemes.pruning import Prune
from passes.schemes.sums import Sum
from passes.schemes.uniform import Uniform
from passes.schemes.vector_view import fit_as_one_vector

SHARED = (Prune, Codebook, LowRank, Uniform, Binary, Ternary, PowerOfTwo, Points, Sum)
"""What weights can share."""

Weights = Mapping[str, np.ndarray]
Contexts = Mapping[str, FitContext]


def fit_jointly(
    scheme: Scheme, shared: Collection[type], weights: Weights, contexts: Contexts | None = None
) -> dict[str, Parameters]:
    """Fits ``scheme`` to several weights.

    Args:
        scheme: With its inner schemes.
        shared: Kinds of scheme, of SHARED, that the weights share; others are of each weight.
        weights: name -> float array.
        contexts: name -> context; those left out are plain.

    Returns:
        name -> parameters, in the order of ``weights``.

    Raises:
        SchemeError: as the schemes' own `fit`, with the weight's name where it is about one; a kind
            that cannot be shared, or that stands where it cannot be.
    """
    given = {name: (contexts or {}).get(name, FitContext()) for name in weights}
    inner = getattr(scheme, "inner", None)
    if inner is not None and any(kind in _kinds(inner) for kind in shared):
        return _around(scheme, inner, shared, weights, given)
    return _fitted(scheme, type(scheme) in shared, weights, given)


def _kinds(scheme: Any) -> list[type]:
    """The kinds of a scheme and of what stands behind it."""
    found = []
    while scheme is not None:
        found.append(type(scheme))
        scheme = getattr(scheme, "inner", None)
    return found


def _around(
    scheme: Any, inner: Scheme, shared: Collection[type], weights: Weights, contexts: Contexts
) -> dict[str, Parameters]:
    """A scheme whose inner one is shared: it is fitted once to see what it hands on, and again
    with what the inner scheme makes of that."""
    asked = _Asked()
    _fitted(replace(scheme, inner=asked), type(scheme) in shared, weights, contexts)
    if len(asked.arrays) != len(weights):
        kind = type(scheme).__name__
        raise SchemeError(f"what stands behind {kind} cannot be shared by several weights")
    names = [str(place) for place in range(len(weights))]
    answers = fit_jointly(
        inner,
        shared,
        dict(zip(names, asked.arrays, strict=True)),
        dict(zip(names, asked.contexts, strict=True)),
    )
    told = _Told([answers[name] for name in names])
    return _fitted(replace(scheme, inner=told), type(scheme) in shared, weights, contexts)


@dataclass
class _Asked:
    """Stands in for an inner scheme and notes what it is given."""

    arrays: list[np.ndarray] = field(default_factory=list)
    contexts: list[FitContext] = field(default_factory=list)

    def fit(self, weight: np.ndarray, context: FitContext | None = None) -> Parameters:
        self.arrays.append(weight)
        self.contexts.append(context or FitContext())
        return Lossless().fit(weight)


@dataclass
class _Told:
    """Stands in for an inner scheme and answers with what has been fitted, in the same order."""

    answers: list[Parameters]

    def fit(self, weight: np.ndarray, context: FitContext | None = None) -> Parameters:
        return self.answers.pop(0)


def _fitted(
    scheme: Any, is_shared: bool, weights: Weights, contexts: Contexts
) -> dict[str, Parameters]:
    if not is_shared:
        return {
            name: _of_one(name, scheme.fit, array, contexts[name])
            for name, array in weights.items()
        }
    if not isinstance(scheme, SHARED):
        raise SchemeError(f"{type(scheme).__name__} cannot be shared by several weights")
    if isinstance(scheme, Prune):
        return dict(prune_jointly(weights, scheme, contexts))
    if isinstance(scheme, Codebook):
        return dict(scheme.fit_joint(weights, contexts))
    if isinstance(scheme, LowRank):
        return dict(factorize_jointly(weights, scheme, contexts))
    return fit_as_one_vector(scheme, weights, contexts)


def _of_one(
    name: str,
    fit: Callable[[np.ndarray, FitContext], Parameters],
    array: np.ndarray,
    context: FitContext,
) -> Parameters:
    try:
        return fit(array, context)
    except SchemeError as error:
        raise SchemeError(f"{name}: {error}") from error
