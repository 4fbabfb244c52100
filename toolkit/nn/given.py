# SPDX-License-Identifier: Apache-2.0
"""Weights whose compressed form is known: the end of methods that fit schemes while they train."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from passes.errors import SchemeError
from passes.schemes import Parameters
from toolkit.nn.compressed import Compressed, as_tensor, attach, stored_bits_of


class Given(Compressed):
    """weight = what ``parameters`` decode to, in training and evaluation mode; nothing of it is
    trained. For sizes and export; what is saved of it is the weight only.

    Args:
        parameters: A fitted scheme.
    """

    weight: Tensor

    def __init__(self, parameters: Parameters) -> None:
        super().__init__()
        self.parameters_given = parameters
        self.register_buffer("weight", as_tensor(parameters.decode(), torch.zeros(())))

    def training_weight(self, original: Tensor) -> Tensor:
        return self.weight

    def evaluation_weight(self, original: Tensor) -> Tensor:
        return self.weight

    def parameters_of(self, original: Tensor) -> Parameters:
        return self.parameters_given

    def rate(self, original: Tensor) -> Tensor:
        """A number, without gradients."""
        return torch.tensor(stored_bits_of(self.parameters_given), device=original.device)


def attach_given(model: nn.Module, parameters: Mapping[str, Parameters]) -> None:
    """Gives the parameters of ``model`` the forms that a method found for them, by name.

    Raises:
        SchemeError: the model has no such parameter, or of another shape.
    """
    known = dict(model.named_parameters())
    for name, fitted in parameters.items():
        if name not in known or tuple(known[name].shape) != tuple(fitted.shape):
            found = "none" if name not in known else tuple(known[name].shape)
            raise SchemeError(
                f"{name}: expected a parameter of {tuple(fitted.shape)}, found {found}"
            )
        prefix, _, tensor_name = name.rpartition(".")
        attach(model.get_submodule(prefix), tensor_name, Given(fitted))
