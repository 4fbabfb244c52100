# SPDX-License-Identifier: Apache-2.0
"""Channel pruning of a torch model, by the pass that prunes ONNX models: channels are chosen and
what follows is refitted on calibration data, then the module's own tensors are cut. Fine-tuning is
any `Trainer` run afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from passes import PruneChannels, PrunedGroup
from passes.errors import ModelError, SchemeError, SettingsError
from toolkit.errors import InputError, one_line

_SIZES: list[tuple[tuple[type[nn.Module], ...], dict[str, int]]] = [
    ((nn.Linear,), {"out_features": 0, "in_features": 1}),
    ((nn.Conv1d, nn.Conv2d, nn.Conv3d), {"out_channels": 0}),
    ((nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d), {"num_features": 0}),
]
_AGREE = 1e-3  # of the largest output: round-off of other kernels


def prune_channels(
    model: nn.Module,
    inputs: torch.Tensor,
    fraction: float | Mapping[str, float] = 0.3,
    *,
    selection: str = "greedy",
    reconstruct: bool = True,
    multiple_of: int = 1,
    seed: int = 0,
) -> tuple[PrunedGroup, ...]:
    """Removes channels from ``model``, in place, and refits the layers behind them.

    Args:
        model: Plain (without compressed forms), with a forward of one tensor.
        inputs: Training samples [samples, ...], at least two; not validation or test data.
        fraction: The share to remove, or shares by glob pattern of parameter names.
        selection: ``greedy``, ``lasso``, ``l1``, ``l2`` or ``random``.
        reconstruct: Refit by least squares to what the original gave.
        multiple_of: Channels that stay are rounded to multiples of this.
        seed: Of random selection and sampling.

    Returns:
        The groups of channels, and how many each lost.

    Raises:
        InputError: torch cannot export the model, nothing can be pruned, or the module cannot be
            cut as its graph can (for example where its forward names a number of channels).
    """
    from toolkit.capture_activations import CapturedActivations
    from toolkit.nn.onnx_graph import graph_of

    if len(inputs) < 2:
        raise InputError(f"channel pruning: expected at least 2 samples, found {len(inputs)}")
    was_training, device = model.training, inputs.device
    model.eval().cpu()
    samples = inputs.detach().cpu()
    added = _give_biases(model)  # torch's exporter computes those that are missing
    try:
        graph = graph_of(model, samples[:2])
        name = str(graph.graph.inputs[0].name)
        feeds = [{name: part.numpy()} for part in samples.split(64) if len(part)]
        pruning = PruneChannels(
            selection,
            fraction if isinstance(fraction, float | int) else dict(fraction),
            activations=CapturedActivations(feeds),
            reconstruct=reconstruct,
            multiple_of=multiple_of,
            seed=seed,
        )
        result = pruning.call(graph)
        if not result.groups:
            why = "".join(f": {b.name}: {b.reason}" for b in result.blocked[:1])
            raise InputError(f"channel pruning: no channel can be removed{why}")
    except (InputError, ModelError, SchemeError, SettingsError) as error:
        _take_zero_biases(added)
        model.to(device).train(was_training)
        if isinstance(error, InputError):
            raise
        raise InputError(f"channel pruning: {error}") from error
    arrays = {
        str(value.name): np.asarray(value.const_value.numpy())
        for value in graph.graph.initializers.values()
        if value.const_value is not None
    }
    _cut(model, arrays)
    _take_zero_biases(added)
    _check(model, graph, feeds[0], samples[:64])
    model.to(device).train(was_training)
    return result.groups


def _cut(model: nn.Module, arrays: Mapping[str, np.ndarray]) -> None:
    """Gives the modules the tensors of the pruned graph, and the sizes that go with them."""
    for prefix, module in model.named_modules():
        for name, tensor in (
            *module.named_parameters(recurse=False),
            *module.named_buffers(recurse=False),
        ):
            full = f"{prefix}.{name}" if prefix else name
            if full not in arrays or not tensor.is_floating_point():
                continue
            new = torch.from_numpy(arrays[full].copy()).to(tensor.dtype)
            if new.ndim != tensor.ndim:
                raise InputError(f"channel pruning: {full}: the graph has another form of it")
            if isinstance(tensor, nn.Parameter):
                setattr(module, name, nn.Parameter(new, tensor.requires_grad))
            else:
                setattr(module, name, new)
        _resize(module)


def _give_biases(model: nn.Module) -> list[Any]:
    """Gives layers without a bias one of zeros, which the refit may use; returns them."""
    layers: list[Any] = [
        module
        for module in model.modules()
        if isinstance(module, nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d) and module.bias is None
    ]
    for layer in layers:
        layer.bias = nn.Parameter(torch.zeros(layer.weight.shape[0]))
    return layers


def _take_zero_biases(layers: list[Any]) -> None:
    for layer in layers:
        if not bool(layer.bias.any()):
            layer.bias = None


def _resize(module: nn.Module) -> None:
    weight: Any = getattr(module, "weight", None)
    if weight is None:
        return
    for kinds, sizes in _SIZES:
        if isinstance(module, kinds):
            for attribute, axis in sizes.items():
                setattr(module, attribute, weight.shape[axis])
    if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
        if module.groups > 1 and weight.shape[1] == 1:  # depthwise
            module.groups = weight.shape[0]
        module.in_channels = weight.shape[1] * module.groups


def _check(
    model: nn.Module, graph: Any, feed: Mapping[str, np.ndarray], samples: torch.Tensor
) -> None:
    """The cut module must compute what the pruned graph does."""
    import onnx_ir as ir
    import onnxruntime

    from toolkit.ort_session import quiet_options

    try:
        with torch.no_grad():
            found = model(samples).numpy()
    except RuntimeError as error:
        raise InputError(
            f"channel pruning: the module cannot be cut, its forward fails: {one_line(error)}"
        ) from error
    session = onnxruntime.InferenceSession(
        ir.to_proto(graph).SerializeToString(), quiet_options(1), providers=["CPUExecutionProvider"]
    )
    expected = np.asarray(session.run(None, dict(feed))[0])[: len(found)]
    limit = _AGREE * max(float(np.abs(expected).max()), 1e-6)
    if found.shape != expected.shape or float(np.abs(found - expected).max()) > limit:
        raise InputError("channel pruning: the cut module does not compute what its graph does")
