# SPDX-License-Identifier: Apache-2.0
"""Weights that stay what fitted parameters decode to: how methods which leave plain weights hand
them to `toolkit.export` without another quantisation."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from passes.errors import SchemeError
from passes.schemes import Parameters
from toolkit.errors import InputError
from toolkit.nn import Compressed, attach
from toolkit.train.weight_arrays import array_of, parameter_of, tensor_of


class Stored(Compressed):
    """The weight that ``parameters`` decode to. Gradients go straight through to the original."""

    def __init__(self, parameters: Parameters) -> None:
        super().__init__()
        self.fitted = parameters
        self._bits: float | None = None

    def training_weight(self, original: torch.Tensor) -> torch.Tensor:
        decoded = tensor_of(self.fitted.decode(), original)
        return decoded + (original - original.detach())

    def evaluation_weight(self, original: torch.Tensor) -> torch.Tensor:
        return tensor_of(self.fitted.decode(), original)

    def parameters_of(self, original: torch.Tensor) -> Parameters:
        return self.fitted

    def rate(self, original: torch.Tensor) -> torch.Tensor:
        """A number without gradients."""
        if self._bits is None:
            self._bits = self.rate_exact(original)
        return torch.tensor(self._bits, device=original.device)


def attach_fitted(model: nn.Module, parameters: Mapping[str, Parameters]) -> None:
    """Gives parameters of ``model`` the form `Stored`; those with a compressed form keep theirs.

    Raises InputError where a parameter is not what its scheme decodes to.
    """
    plain = {name for name, _ in model.named_parameters()}
    for name, fitted in parameters.items():
        if name not in plain:
            continue
        weight = parameter_of(model, name)
        if not np.array_equal(array_of(weight), fitted.decode().astype(np.float32)):
            raise InputError(f"{name}: the weight is not what was fitted: finish training first")
        prefix, _, tensor = name.rpartition(".")
        try:
            attach(model.get_submodule(prefix), tensor, Stored(fitted))
        except SchemeError as error:
            raise InputError(f"{name}: {error}") from error
