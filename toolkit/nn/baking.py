# SPDX-License-Identifier: Apache-2.0
"""Models without parametrizations: plain tensors with the weights of evaluation mode."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.nn.utils import parametrize

from toolkit.nn.compressed import parametrizations


def unwrap(model: nn.Module) -> nn.Module:
    """Puts the weight of evaluation mode in the place of every compressed tensor, bit for bit.

    Changes ``model`` and returns it; its mode stays as it is, its state dict becomes that of a
    plain model.
    """
    found = []
    for name, module, form in list(parametrizations(model)):
        tensor_name = name.rpartition(".")[2]
        was_training = form.training
        form.eval()
        with torch.no_grad():
            found.append((module, tensor_name, getattr(module, tensor_name).detach().clone()))
        form.train(was_training)
    for module, tensor_name, weight in found:  # behind all: some forms see each other's tensors
        _give_own_class(module)
        parametrize.remove_parametrizations(module, tensor_name, leave_parametrized=False)
        delattr(module, tensor_name)
        module.register_parameter(tensor_name, nn.Parameter(weight))
    return model


def _give_own_class(module: nn.Module) -> None:
    """A class that no copy of ``module`` shares: torch takes properties out of the class."""
    kind = type(module)
    known = {k: v for k, v in vars(kind).items() if k not in ("__dict__", "__weakref__")}
    module.__class__ = type(kind.__name__, kind.__bases__, known)


def plain_copy(model: nn.Module) -> nn.Module:
    """A copy of ``model`` in evaluation mode, on the CPU, without parametrizations."""
    return unwrap(copy.deepcopy(model)).eval().cpu()
