# SPDX-License-Identifier: Apache-2.0
"""Layers with familiar signatures: they train, save, load, compile, and run in bfloat16."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import toolkit.nn as tnn
from passes.schemes import Codebook, Prune, Uniform

torch.set_num_threads(1)

LAYERS: dict[str, Callable[[], nn.Module]] = {
    "EntropyLinear": lambda: tnn.EntropyLinear(12, 8),
    "EntropyLinear, no bias": lambda: tnn.EntropyLinear(12, 8, bias=False),
    "EntropyLinear, plain bias": lambda: tnn.EntropyLinear(12, 8, bias_decoder=False),
    "EntropyLinear, prior": lambda: tnn.EntropyLinear(12, 8, rate=tnn.prior_per_tap, ema_decay=0.9),
    "EntropyConv2d": lambda: tnn.EntropyConv2d(3, 8, 3, stride=2, padding=1),
    "EntropyConv2d, frequency": lambda: tnn.EntropyConv2d(
        3, 8, 3, decoder=tnn.FrequencyDecoder, bias=False
    ),
    "EntropyConv2d, matrix": lambda: tnn.EntropyConv2d(
        3, 8, (1, 3), decoder=tnn.MatrixDecoder, groups=1, ema_decay=0.9
    ),
    "TransformLinear": lambda: tnn.TransformLinear(12, 8, kind="dst", keep=0.5),
    "TransformLinear, cosine": lambda: tnn.TransformLinear(12, 8, kind="cosine"),
    "TransformConv2d": lambda: tnn.TransformConv2d(3, 8, 3, kind="dft", axes=(0, 2, 3)),
    "QuantizedLinear": lambda: tnn.QuantizedLinear(12, 8, bits=3),
    "QuantizedLinear, points": lambda: tnn.QuantizedLinear(12, 8, points=4),
    "QuantizedConv2d": lambda: tnn.QuantizedConv2d(3, 8, 3, bits=3, granularity="row"),
    "MaskedLinear": lambda: tnn.MaskedLinear(12, 8, prune=Prune(fraction=0.3)),
    "MaskedConv2d": lambda: tnn.MaskedConv2d(
        3, 8, 3, prune=Prune(fraction=0.3), inner=Codebook(entries=4)
    ),
    "LowRankLinear": lambda: tnn.LowRankLinear(12, 8, rank=2),
    "LowRankConv2d": lambda: tnn.LowRankConv2d(3, 8, 3, rank=2, inner=Uniform(bits=8)),
}


def layer_of(name: str) -> nn.Module:
    torch.manual_seed(0)
    return LAYERS[name]()


def input_of(layer: nn.Module) -> torch.Tensor:
    return torch.randn(4, 3, 6, 6) if isinstance(layer, nn.Conv2d) else torch.randn(4, 12)


def step(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    optimiser = torch.optim.SGD(layer.parameters(), lr=0.02)
    loss: torch.Tensor = layer(x).square().mean() + 1e-6 * tnn.rate_bits(layer)
    loss.backward()
    optimiser.step()
    tnn.update_averages(layer)
    return loss.detach()


@pytest.mark.parametrize("name", LAYERS)
def test_layers_train_save_and_load(name: str, tmp_path: Path) -> None:
    layer = layer_of(name)
    x = input_of(layer)
    before = layer.weight.detach().clone()
    step(layer, x)
    assert not torch.equal(layer.weight, before)
    state = layer.state_dict()
    assert all(type(value) is torch.Tensor for value in state.values())
    np.savez(tmp_path / "state.npz", **{key: value.numpy() for key, value in state.items()})
    with np.load(tmp_path / "state.npz") as stored:
        loaded = {key: torch.from_numpy(stored[key]) for key in stored.files}
    other = layer_of(name)
    other.load_state_dict(loaded)
    for mode in (True, False):
        layer.train(mode)
        other.train(mode)
        torch.manual_seed(1)
        first = layer(x)
        torch.manual_seed(1)
        assert torch.equal(other(x), first)
    layer.train()
    other.train()
    if not isinstance(layer, nn.Linear) or "prior" not in name:  # whose rate draws noise
        assert torch.equal(step(layer, x), step(other, x))
    twin = copy.deepcopy(layer)
    assert torch.equal(twin(x), layer(x))


@pytest.mark.parametrize("name", LAYERS)
def test_layers_under_autocast(name: str) -> None:
    """Weights and rates are computed in float32, so that what is stored is what was trained."""
    layer = layer_of(name)
    x = input_of(layer)
    weight = layer.weight.detach()
    with torch.autocast("cpu", torch.bfloat16):
        assert layer.weight.dtype == torch.float32
        assert torch.equal(layer.weight.detach(), weight)
        out = layer(x)
        loss = out.float().square().mean() + 1e-6 * tnn.rate_bits(layer)
    loss.backward()
    assert out.dtype == torch.bfloat16
    assert all(p.grad is None or p.grad.dtype == torch.float32 for p in layer.parameters())
    layer.eval()
    with torch.autocast("cpu", torch.bfloat16):
        weight = layer.weight.detach().numpy()
    fitted = tnn.fitted_parameters(layer)["weight"]
    np.testing.assert_array_equal(fitted.decode(), weight)


@pytest.mark.parametrize("name", LAYERS)
def test_layers_compile(name: str) -> None:
    """With a graph break where NumPy fits; the results are those without compilation."""
    layer = layer_of(name)
    x = input_of(layer)
    compiled = torch.compile(layer, backend="aot_eager")
    for mode in (True, False):
        layer.train(mode)
        with torch.no_grad():
            torch.testing.assert_close(compiled(x), layer(x), rtol=1e-6, atol=1e-6)
    layer.train()
    torch.testing.assert_close(
        torch.autograd.grad(compiled(x).sum(), list(layer.parameters())[0], allow_unused=True)[0],
        torch.autograd.grad(layer(x).sum(), list(layer.parameters())[0], allow_unused=True)[0],
    )


@pytest.mark.skipif(
    shutil.which("c++") is None and shutil.which("g++") is None,
    reason="inductor, torch.compile's own backend, needs a C++ compiler",
)
def test_a_network_trains_compiled_by_inductor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights after a few steps are those of the same steps without compilation."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    torch.manual_seed(0)
    net = nn.Sequential(tnn.EntropyLinear(12, 8), nn.ReLU(), tnn.LowRankLinear(8, 4, rank=2))
    plain, x = copy.deepcopy(net), torch.randn(16, 12)
    losses = []
    for model, run in ((net, torch.compile(net)), (plain, plain)):
        optimiser = torch.optim.SGD(model.parameters(), lr=0.05)
        for _ in range(3):
            loss = run(x).square().mean() + 1e-6 * tnn.rate_bits(model)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            tnn.update_averages(model)
        losses.append(loss.item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(net.state_dict()[name], value, rtol=1e-4, atol=1e-5)


def test_convolutions_of_every_signature() -> None:
    """Stride, padding, dilation and groups are those of the plain layer."""
    torch.manual_seed(0)
    plain = nn.Conv2d(4, 8, 3, 2, 1, 2, 2, True, "zeros")
    layer = tnn.EntropyConv2d(4, 8, 3, 2, 1, 2, 2, True, "zeros")
    x = torch.randn(2, 4, 9, 9)
    assert layer(x).shape == plain(x).shape
    assert layer.weight.shape == plain.weight.shape == (8, 2, 3, 3)


def test_an_affine_decoder_of_every_size_survives_being_stored() -> None:
    """One step, one for each column, and a full matrix."""
    for decoder in (
        None,
        tnn.AffineDecoder(axis=1, size=12),
        tnn.AffineDecoder(axis=0, size=8, units="step"),
        tnn.MatrixDecoder((8, 12)),
    ):
        layer = tnn.EntropyLinear(12, 8, decoder=decoder)
        step(layer, torch.randn(4, 12))
        layer.eval()
        stored = tnn.fitted_parameters(layer)["weight"].decode()
        np.testing.assert_array_equal(stored, layer.weight.detach().numpy())


@pytest.mark.parametrize("kind", ["dct", "dst", "dft", "haar"])
def test_transforms_of_kernels_hold_every_pattern(kind: str) -> None:
    """Each filter has patterns of its own, real and imaginary parts count, and the number of
    frequencies is a knob between size and accuracy."""
    torch.manual_seed(0)
    target = torch.randn(8, 3, 4, 4)
    errors, sizes = [], []
    for keep in (0.5, 1.0):
        layer = tnn.TransformConv2d(3, 8, 4, kind=kind, keep=keep, bias=False)
        ((_, _, form),) = tnn.parametrizations(layer)
        with torch.no_grad():
            tnn.original_of(layer, form).copy_(form.right_inverse(target))
        errors.append(float((layer.weight.detach() - target).square().mean()))
        sizes.append(form.rate_exact(tnn.original_of(layer, form)))
    assert errors[1] < 1e-10 and errors[0] > 0.1
    assert sizes[0] < 0.8 * sizes[1]
    patterns = layer.weight.detach().reshape(8 * 3, 16)
    assert int(torch.linalg.matrix_rank(patterns)) == 16
