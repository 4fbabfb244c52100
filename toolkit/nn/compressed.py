# SPDX-License-Identifier: Apache-2.0
"""What all compressed forms of a tensor have in common: the trainable half of a scheme.

A `Compressed` is a parametrization (`torch.nn.utils.parametrize`): the layer keeps an ``original``
tensor that the optimiser moves, and reads the weight that the parametrization makes of it. At the
end it hands over a fitted scheme, `passes.schemes.Parameters`, which decodes to that very weight.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from passes.errors import SchemeError
from passes.schemes import Parameters


class Compressed(nn.Module, ABC):
    """A compressed form of one tensor.

    In training mode the weight is what gradients are taken at; in evaluation mode it is, bit for
    bit, what ``parameters_of(original).decode()`` gives: its arithmetic is that of the scheme's
    ``decode``, in float32 and in the same order.

    All state is in parameters and buffers (and tensors as extra state), so that a state dict holds
    tensors only.
    """

    def forward(self, original: Tensor) -> Tensor:
        """The weight, float32, from the tensor that is trained."""
        if self.training:
            return self.training_weight(original)
        return self.evaluation_weight(original)

    @abstractmethod
    def training_weight(self, original: Tensor) -> Tensor:
        """The weight with gradients to ``original`` and to the parameters of this module."""

    @abstractmethod
    def evaluation_weight(self, original: Tensor) -> Tensor:
        """The weight as it will be stored."""

    @abstractmethod
    def parameters_of(self, original: Tensor) -> Parameters:
        """The fitted scheme as it will be stored; SchemeError where ``original`` holds NaN."""

    @abstractmethod
    def rate(self, original: Tensor) -> Tensor:
        """Total bits (not per weight) when coded, side information included: a 0-dim float32 tensor
        with gradients. In evaluation mode it counts the weight of evaluation mode."""

    def rate_exact(self, original: Tensor) -> float:
        """Bits that the codec writes for the tensor alone, in the form of evaluation mode, side
        information included; graph nodes are not counted."""
        return stored_bits_of(self.parameters_of(original))

    def update_average(self, original: Tensor) -> None:
        """Moves averages a step; forms without any have nothing to do."""

    def fit(self, original: Tensor) -> None:
        """Fits what follows from the weight alone (a mask, scales, a codebook) anew; forms that
        learn all of it have nothing to do."""


def stored_bits_of(parameters: Parameters) -> float:
    """Bits of ``parameters`` as the codec stores their symbols, with their side information."""
    from toolkit.nn.stored_size import parameters_bits

    return parameters_bits(parameters)


def as_array(tensor: Tensor) -> np.ndarray:
    """A float32 tensor as a NumPy array of its own; SchemeError for NaN or infinity."""
    array = tensor.detach().to("cpu", torch.float32).numpy().copy()
    if not np.isfinite(array).all():
        raise SchemeError("the tensor holds NaN or infinity: training has diverged")
    return array


def as_tensor(array: np.ndarray, like: Tensor) -> Tensor:
    """A NumPy array as a float32 tensor where ``like`` is."""
    return torch.from_numpy(np.array(array, np.float32, order="C")).to(like.device)


def attach(module: nn.Module, tensor_name: str, form: Compressed) -> Compressed:
    """Gives parameter ``tensor_name`` of ``module`` the compressed ``form``, which starts from its
    value.

    Raises:
        SchemeError: the tensor has a parametrization already, or is not float32.
    """
    if parametrize.is_parametrized(module, tensor_name):
        raise SchemeError(f"{tensor_name}: has a parametrization already")
    tensor = getattr(module, tensor_name)
    if tensor.dtype != torch.float32:
        raise SchemeError(f"{tensor_name}: expected float32, found {tensor.dtype}")
    form.train(module.training)
    form.to(tensor.device)
    parametrize.register_parametrization(module, tensor_name, form)
    return form


def parametrizations(model: nn.Module) -> Iterator[tuple[str, nn.Module, Compressed]]:
    """All compressed tensors of ``model``: (name of the tensor as in ``model`` before, its module,
    its form), in the order of the modules. A tensor that several modules share is listed once."""
    for name, module, _, form in _entries(model):
        yield name, module, form


def original_of(module: nn.Module, form: Compressed) -> Tensor:
    """The tensor that is trained in place of the one that ``form`` of ``module`` makes."""
    for entries in _lists(module).values():
        if entries[0] is form:
            return entries.original  # type: ignore[no-any-return]
    raise SchemeError("the module has no such parametrization")


def originals(model: nn.Module) -> Iterator[tuple[str, Tensor, Compressed]]:
    """As `parametrizations`, with the trained tensor in the place of the module."""
    for name, _, entries, form in _entries(model):
        yield name, entries.original, form


def _entries(model: nn.Module) -> Iterator[tuple[str, nn.Module, Any, Compressed]]:
    seen: set[int] = set()
    for prefix, module in model.named_modules():
        for tensor_name, entries in _lists(module).items():
            form = entries[0]
            if not isinstance(form, Compressed) or id(entries) in seen:
                continue
            seen.add(id(entries))
            name = f"{prefix}.{tensor_name}" if prefix else tensor_name
            if len(entries) > 1:
                raise SchemeError(f"{name}: a compressed tensor with further parametrizations")
            yield name, module, entries, form


def _lists(module: nn.Module) -> dict[str, Any]:
    if not parametrize.is_parametrized(module):
        return {}
    lists: Any = module.parametrizations
    return dict(lists.items())
