# SPDX-License-Identifier: Apache-2.0
"""Sizes of a whole model: the rate of its loss, and what the codec writes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from passes.schemes import Parameters
from toolkit.nn.compressed import originals, parametrizations

_OPERATORS: dict[type[nn.Module], str] = {
    nn.Linear: "Gemm",
    nn.Conv1d: "Conv",
    nn.Conv2d: "Conv",
    nn.Conv3d: "Conv",
    nn.ConvTranspose1d: "ConvTranspose",
    nn.ConvTranspose2d: "ConvTranspose",
    nn.ConvTranspose3d: "ConvTranspose",
    nn.Embedding: "Gather",
}


def rate_bits(model: nn.Module) -> Tensor:
    """Total bits of all compressed tensors of ``model``, with gradients, float32 []: a weight
    counts the same in a small layer as in a large one. 0 where nothing is compressed."""
    total: Tensor | None = None
    for _, original, form in originals(model):
        bits = form.rate(original)
        total = bits if total is None else total + bits.to(total.device)
    return torch.zeros(()) if total is None else total


def rate_exact_bits(model: nn.Module) -> float:
    """Bits that the codec writes for all compressed tensors, each alone."""
    return sum(form.rate_exact(original) for _, original, form in originals(model))


def update_averages(model: nn.Module) -> None:
    """Moves the averages of all compressed tensors a step; to be called behind each step of the
    optimiser."""
    for _, original, form in originals(model):
        form.update_average(original)


def fit_all(model: nn.Module) -> None:
    """Fits anew what follows from the weights alone: masks, scales, codebooks."""
    for _, original, form in originals(model):
        form.fit(original)


def fitted_parameters(model: nn.Module) -> dict[str, Parameters]:
    """The fitted scheme of every compressed tensor, by the tensor's name."""
    pairs = zip(parametrizations(model), originals(model), strict=True)
    return {name: form.parameters_of(original) for (name, _, form), (_, original, _) in pairs}


def compressed_bytes(model: nn.Module, others: Mapping[str, Parameters] | None = None) -> int:
    """Bytes from which all parameters and floating-point buffers are decoded: compressed tensors
    coded together as in a file (symbols, tables, scales, headers), all others as float32. Names and
    nodes of a graph are not counted. ``others``: fitted schemes, by name, of tensors without a
    compressed form."""
    from toolkit.nn.stored_size import stored_bytes

    tensors: dict[str, tuple[Parameters | np.ndarray, str]] = {}
    modules = dict(model.named_modules())
    fitted = fitted_parameters(model) | dict(others or {})
    for name, parameters in fitted.items():
        module = modules[name.rpartition(".")[0]]
        tensors[name] = (parameters, _operator_of(module, parameters.shape))
    for name, tensor in plain_tensors(model):
        if name in fitted:
            continue
        tensors[name] = (tensor.detach().to("cpu", torch.float32).numpy(), "Add")
    return stored_bytes(tensors)


def plain_bytes(model: nn.Module) -> int:
    """Bytes of all parameters and floating-point buffers of ``model`` as float32, compressed
    tensors at the size of their weights."""
    weights = sum(int(np.prod(p.shape)) for p in fitted_parameters(model).values())
    return 4 * (weights + sum(tensor.numel() for _, tensor in plain_tensors(model)))


def plain_tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters and floating-point buffers that no compressed form stands for, by name; shared
    ones once."""
    inside = {
        id(tensor)
        for module in model.modules()
        if isinstance(module, parametrize.ParametrizationList)
        for tensor in (*module.parameters(), *module.buffers())
    }
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if id(tensor) not in inside and tensor.is_floating_point():
            yield name, tensor


def _operator_of(module: nn.Module, shape: tuple[int, ...]) -> str:
    if len(shape) < 2:
        return "Add"
    found = (op for kind, op in _OPERATORS.items() if isinstance(module, kind))
    return next(found, "")
