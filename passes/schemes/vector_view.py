# SPDX-License-Identifier: Apache-2.0
"""Several weights as one vector: a scheme of single elements is fitted to all of them at once, and
each weight takes its part (Idelbayev and Carreira-Perpiñán 2020, "A flexible, extensible software
framework for model compression based on the LC algorithm", section 4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from passes.errors import SchemeError
from passes.schemes.base import FitContext, Parameters, Scheme
from passes.schemes.codebook_parameters import CodebookParameters
from passes.schemes.lossless import Lossless, LosslessParameters
from passes.schemes.prune_parameters import PruneParameters
from passes.schemes.sums import SumParameters
from passes.schemes.uniform import UniformParameters


def fit_as_one_vector(
    scheme: Scheme, weights: Mapping[str, np.ndarray], contexts: Mapping[str, FitContext]
) -> dict[str, Parameters]:
    """Fits ``scheme`` to all elements of ``weights``, in their order; mu, seed and remarks are
    those of the first weight's context.

    Raises:
        SchemeError: the weights are of several types, none or one of them cannot be fitted, or the
            scheme's parameters are more than one scale and one symbol per element.
    """
    types = {array.dtype.name for array in weights.values()}
    if len(types) != 1:
        found = " and ".join(sorted(types)) or "none"
        raise SchemeError(f"weights as one vector must be of one type, found {found}")
    vector = np.concatenate([array.reshape(-1) for array in weights.values()])
    first = contexts[next(iter(weights))]
    context = FitContext(
        mask=_joined(weights, {n: contexts[n].mask for n in weights}, True),
        importance=_joined(weights, {n: contexts[n].importance for n in weights}, 1.0),
        mu=first.mu,
        seed=first.seed,
        remarks=first.remarks,
    )
    fitted, parts, start = scheme.fit(vector, context), dict[str, Parameters](), 0
    for name, array in weights.items():
        parts[name] = _part(fitted, slice(start, start + array.size), array.shape)
        start += array.size
    return parts


def _joined(
    weights: Mapping[str, np.ndarray], given: Mapping[str, np.ndarray | None], default: bool | float
) -> np.ndarray | None:
    """What is given for each weight, as one vector; None where it is given for none."""
    if all(value is None for value in given.values()):
        return None
    parts = []
    for name, array in weights.items():
        value = given[name]
        whole = np.broadcast_to(np.asarray(default if value is None else value), array.shape)
        parts.append(whole.reshape(-1))
    return np.concatenate(parts)


def _part(fitted: Parameters, place: slice, shape: Sequence[int]) -> Parameters:
    """The parameters of the elements at ``place`` of a vector, as a weight of ``shape``."""
    if isinstance(fitted, UniformParameters) and fitted.scale.ndim == 0:
        return replace(fitted, symbols=fitted.symbols[place].reshape(shape))
    if isinstance(fitted, CodebookParameters):
        return replace(fitted, symbols=fitted.symbols[place].reshape(shape))
    if isinstance(fitted, PruneParameters):
        inner = _part(fitted.inner, place, shape)
        return PruneParameters(inner, fitted.mask[place].reshape(shape))
    if isinstance(fitted, SumParameters):
        return SumParameters(tuple(_part(part, place, shape) for part in fitted.parts))
    if isinstance(fitted, LosslessParameters):
        return Lossless().fit(fitted.decode()[place].reshape(shape))
    raise SchemeError(f"{fitted.name}: weights as one vector can share one scale only")
