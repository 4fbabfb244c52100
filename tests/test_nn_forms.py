# SPDX-License-Identifier: Apache-2.0
"""Every compressed form: the weight of evaluation mode is what the scheme decodes to."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

import toolkit.nn as tnn
from passes.errors import SchemeError
from passes.schemes import (
    Binary,
    Codebook,
    LowRank,
    Prune,
    Scaled,
    Sum,
    Ternary,
    Transform,
    Uniform,
)

torch.set_num_threads(1)

SHAPE = (12, 3, 3, 3)
Form = Callable[[], tnn.Compressed]

FORMS: dict[str, Form] = {
    "latent": lambda: tnn.Latent(SHAPE),
    "latent, EMA": lambda: tnn.Latent(SHAPE, ema_decay=0.9),
    "latent, rows": lambda: tnn.Latent(SHAPE, tnn.AffineDecoder(axis=0, size=12)),
    "latent, columns": lambda: tnn.Latent(SHAPE, tnn.AffineDecoder(axis=1, size=3)),
    "latent, steps": lambda: tnn.Latent(SHAPE, tnn.AffineDecoder(units="step")),
    "latent, offset": lambda: tnn.Latent(SHAPE, tnn.AffineDecoder(offset=True, units="step")),
    "learned step": lambda: tnn.Latent(SHAPE, tnn.AffineDecoder(relative_step=1.0), bits=2),
    "uniform": lambda: tnn.Fitted(Uniform(bits=4)),
    "uniform, rows": lambda: tnn.Fitted(Uniform(bits=4, granularity="row")),
    "uniform, buckets": lambda: tnn.Fitted(Uniform(bits=3, granularity="bucket", group_size=50)),
    "uniform, linear": lambda: tnn.Fitted(Uniform(bits=2, scaling="linear")),
    "uniform, zero point": lambda: tnn.Fitted(Uniform(bits=3, symmetric=False)),
    "uniform, absnorm": lambda: tnn.Fitted(Uniform(bits=8, scaling="absnorm")),
    "stochastic": lambda: tnn.Fitted(Uniform(bits=3, rounding="stochastic")),
    "truncated": lambda: tnn.Fitted(Uniform(bits=2), gradient="truncated"),
    "codebook": lambda: tnn.Fitted(Codebook(entries=5)),
    "scaled codebook": lambda: tnn.Fitted(Scaled(Codebook(entries=4), granularity="row")),
    "binary": lambda: tnn.Fitted(Binary()),
    "ternary": lambda: tnn.Fitted(Ternary()),
    "low rank": lambda: tnn.Fitted(LowRank(rank=3, inner=Uniform(bits=8))),
    "transform": lambda: tnn.Fitted(Transform("dct", relative_step=0.5)),
    "sum": lambda: tnn.Fitted(Sum((Binary(), Prune(fraction=0.1)))),
    "frequency domain": lambda: tnn.Latent(SHAPE, tnn.FrequencyDecoder(SHAPE)),
    "wavelets, channels": lambda: tnn.Latent(
        SHAPE, tnn.FrequencyDecoder(SHAPE, "haar", axes=(0, 2)), ema_decay=0.9
    ),
    "matrix": lambda: tnn.Latent(SHAPE, tnn.MatrixDecoder(SHAPE)),
    "prior per tap": lambda: tnn.Latent(SHAPE, rate=tnn.prior_per_tap(SHAPE)),
    "low DCT": lambda: tnn.Transformed(SHAPE, "dct", keep=0.6),
    "low DST": lambda: tnn.Transformed(SHAPE, "dst", axes=(0, 1), keep=0.6),
    "low DFT": lambda: tnn.Transformed(SHAPE, "dft", keep=0.5, inner=Uniform(bits=8)),
    "all DFT": lambda: tnn.Transformed(SHAPE, "dft"),
    "factors": lambda: tnn.Factored(SHAPE, 3),
    "spatial factors": lambda: tnn.Factored(SHAPE, 3, reshape="spatial", inner=Uniform(bits=8)),
    "summed": lambda: tnn.Summed([tnn.Fitted(Binary()), tnn.Masked(SHAPE, Prune(fraction=0.1))]),
    "summed latents": lambda: tnn.Summed([tnn.Latent(SHAPE), tnn.Fitted(Codebook(entries=2))]),
    "masked": lambda: tnn.Masked(SHAPE, Prune(fraction=0.2)),
    "masked codebook": lambda: tnn.Masked(SHAPE, Prune(fraction=0.3), Codebook(entries=4)),
    "masked kernels": lambda: tnn.Masked(SHAPE, Prune(fraction=0.5, granularity="kernel")),
}


def layer_with(form: tnn.Compressed) -> nn.Conv2d:
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 12, 3)
    tnn.attach(layer, "weight", form)
    form.fit(tnn.original_of(layer, form))
    return layer


def train(layer: nn.Conv2d, steps: int = 5) -> None:
    optimiser = torch.optim.SGD(layer.parameters(), lr=0.05)
    x = torch.randn(4, 3, 8, 8)
    for _ in range(steps):
        optimiser.zero_grad()
        (layer(x).square().mean() + 1e-6 * tnn.rate_bits(layer)).backward()
        optimiser.step()
        tnn.update_averages(layer)


@pytest.mark.parametrize("name", FORMS)
def test_evaluation_is_what_is_stored(name: str) -> None:
    form = FORMS[name]()
    layer = layer_with(form)
    original = tnn.original_of(layer, form)
    before = original.detach().clone()
    train(layer)
    assert not torch.equal(original, before)
    layer.eval()
    stored = form.parameters_of(original)
    weight = layer.weight.detach().numpy()
    np.testing.assert_array_equal(stored.decode().view(np.int32), weight.view(np.int32))
    assert stored.shape == SHAPE
    assert float(form.rate(original).detach()) > 0
    assert form.rate_exact(original) > 0


@pytest.mark.parametrize("name", FORMS)
def test_state_dicts_hold_tensors_and_load(name: str) -> None:
    form, other = FORMS[name](), FORMS[name]()
    layer, again = layer_with(form), layer_with(other)
    train(layer)
    state = layer.state_dict()
    assert all(isinstance(value, torch.Tensor) for value in state.values())
    again.load_state_dict({key: value.clone() for key, value in state.items()})
    layer.eval()
    again.eval()
    assert torch.equal(layer.weight, again.weight)


def test_the_average_is_what_is_evaluated() -> None:
    form = tnn.Latent((4, 8), tnn.AffineDecoder(0.01), ema_decay=0.5)
    layer = nn.Linear(8, 4)
    tnn.attach(layer, "weight", form)
    original = tnn.original_of(layer, form)
    start = original.detach().clone()
    with torch.no_grad():
        original += 1.0
    tnn.update_averages(layer)  # the first one counts (1 + 1) / (10 + 1)
    layer.eval()
    expected = start + (1 - 2 / 11)
    torch.testing.assert_close(layer.weight.detach(), expected, rtol=0, atol=0.006)
    for _ in range(30):
        tnn.update_averages(layer)
    torch.testing.assert_close(layer.weight.detach(), start + 1.0, rtol=0, atol=0.006)


def test_a_shared_decoder_gets_the_gradients_of_all() -> None:
    decoder = tnn.AffineDecoder(0.05)
    layers = [nn.Linear(8, 4, bias=False) for _ in range(2)]
    for layer in layers:
        tnn.attach(layer, "weight", tnn.Latent((4, 8), decoder))
    model = nn.Sequential(nn.Linear(4, 8), *layers[:1], nn.Linear(4, 8), *layers[1:])
    assert len({id(p) for p in model.parameters()}) == 4 + 2 + 1
    gradients = []
    for layer in layers:
        model.zero_grad()
        layer.weight.sum().backward()
        assert isinstance(decoder.log_step, nn.Parameter) and decoder.log_step.grad is not None
        gradients.append(float(decoder.log_step.grad))
    model.zero_grad()
    sum(layer.weight.sum() for layer in layers).backward()
    assert decoder.log_step.grad is not None
    assert float(decoder.log_step.grad) == pytest.approx(sum(gradients), rel=1e-5, abs=1e-6)


def test_learned_steps_keep_to_their_bits() -> None:
    """Both the step and the weights learn; weights beyond the ends wait for the step."""
    layer = tnn.QuantizedLinear(40, 30, bias=False, bits=3, learned_step=True)
    ((_, _, form),) = tnn.parametrizations(layer)
    target = torch.from_numpy(np.random.default_rng(0).normal(0, 0.5, (30, 40))).float()
    optimiser = torch.optim.Adam(layer.parameters(), lr=0.02)
    for _ in range(200):
        optimiser.zero_grad()
        (layer.weight - target).square().mean().backward()
        optimiser.step()
    fitted = form.parameters_of(tnn.original_of(layer, form))
    assert np.abs(fitted.symbols).max() == 3
    best = Uniform(bits=3).fit(target.numpy()).decode()
    error = float((layer.weight.detach() - target).square().mean())
    assert error < float(np.square(best - target.numpy()).mean())
    with pytest.raises(SchemeError, match="a learned step goes with bits"):
        tnn.QuantizedLinear(4, 4, points=3, learned_step=True)


def test_biases_are_compressed_like_weights() -> None:
    layer = nn.Linear(8, 100)
    tnn.attach(layer, "bias", tnn.Latent((100,)))
    layer.eval()
    (parameters,) = tnn.fitted_parameters(layer).values()
    np.testing.assert_array_equal(parameters.decode(), layer.bias.detach().numpy())


def test_masked_weights_stay_zero_and_get_no_gradient() -> None:
    form = tnn.Masked(SHAPE, Prune(fraction=0.25))
    layer = layer_with(form)
    assert form.density == pytest.approx(0.25, abs=0.01)
    original = tnn.original_of(layer, form)
    layer.weight.sum().backward()
    assert original.grad is not None
    assert torch.equal(original.grad != 0, form.mask)
    train(layer)
    assert torch.equal(layer.weight != 0, form.mask)


def test_truncated_gradients_stop_outside_the_range() -> None:
    layer = nn.Linear(3, 1, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[-0.5, 0.1, 3.0]]))
    scheme = Uniform(step=0.25)
    form = tnn.Fitted(scheme, gradient="truncated")
    tnn.attach(layer, "weight", form)
    original = tnn.original_of(layer, form)
    with torch.no_grad():
        original[0, 2] = 3.1  # is rounded to 3.0, the end of the range
    layer.weight.sum().backward()
    assert original.grad is not None and original.grad.tolist() == [[1.0, 1.0, 0.0]]


def test_stochastic_rounding_has_no_bias() -> None:
    layer = nn.Linear(1, 1, bias=False)
    form = tnn.Fitted(Uniform(step=1.0, rounding="stochastic"))
    tnn.attach(layer, "weight", form)
    with torch.no_grad():
        tnn.original_of(layer, form).fill_(0.3)
    drawn = [float(layer.weight.detach()) for _ in range(400)]
    assert set(drawn) == {0.0, 1.0}
    assert np.mean(drawn) == pytest.approx(0.3, abs=0.08)
    layer.eval()
    assert float(layer.weight.detach()) == 0.0


@pytest.mark.parametrize("form", [tnn.Transformed((8, 6), keep=0.5), tnn.Factored((8, 6), 2)])
def test_gradients_reach_what_exists(form: tnn.Compressed) -> None:
    layer = nn.Linear(6, 8, bias=False)
    tnn.attach(layer, "weight", form)
    target = layer.weight.detach() * 0.5
    optimiser = torch.optim.Adam(layer.parameters(), lr=0.02)
    for _ in range(200):
        optimiser.zero_grad()
        (layer.weight - target).square().sum().backward()
        optimiser.step()
    torch.testing.assert_close(layer.weight.detach(), target, rtol=0, atol=1e-3)


def test_a_transform_is_truncated_at_low_frequencies() -> None:
    layer = nn.Linear(8, 2, bias=False)
    with torch.no_grad():
        layer.weight[0] = torch.cos(torch.pi * (2 * torch.arange(8) + 1) / 16)  # frequency 1
        layer.weight[1] = torch.cos(torch.pi * 5 * (2 * torch.arange(8) + 1) / 16)
    before = layer.weight.detach().clone()
    tnn.attach(layer, "weight", tnn.Transformed((2, 8), "dct", keep=0.5))
    torch.testing.assert_close(layer.weight[0], before[0], rtol=0, atol=1e-6)
    torch.testing.assert_close(layer.weight[1], torch.zeros(8), rtol=0, atol=1e-6)


def test_learned_cosines_follow_a_frequency() -> None:
    """An amplitude and a frequency for each row, both learned."""
    places = 2 * np.arange(20) + 1
    target = np.stack([3 * np.cos(np.pi * f * places / 16) for f in (0.7, 2.2, 3.5)])
    wanted = torch.from_numpy(np.repeat(target, 3, axis=0)[:8].astype(np.float32))
    layer = nn.Linear(20, 8, bias=False)
    with torch.no_grad():
        layer.weight.copy_(wanted)
    form = tnn.LearnedCosines((8, 20), start="weight")
    tnn.attach(layer, "weight", form)
    original = tnn.original_of(layer, form)
    assert original.numel() == 2 * 8
    optimiser = torch.optim.Adam([original], lr=0.01)
    for _ in range(400):
        optimiser.zero_grad()
        (layer.weight - wanted).square().mean().backward()
        optimiser.step()
    torch.testing.assert_close(layer.weight.detach(), wanted, rtol=0, atol=0.05)
    torch.testing.assert_close(original[1, :3], torch.full((3,), 0.7), rtol=0, atol=0.02)
    layer.eval()
    stored = form.parameters_of(original).decode()
    np.testing.assert_array_equal(stored, layer.weight.detach().numpy())


def test_a_matrix_decoder_mixes_taps() -> None:
    """Taps that always go together take one integer."""
    pattern = torch.tensor([1.0, 0.5, -0.5, 0.25]).reshape(1, 1, 2, 2)
    shape = (16, 4, 2, 2)
    layer = nn.Conv2d(4, 16, 2, bias=False)
    decoder = tnn.MatrixDecoder(shape, step=0.1)
    with torch.no_grad():
        decoder.matrix[0] = 0.1 * pattern.reshape(-1)
        sizes = torch.randint(-5, 6, (16, 4, 1, 1))
        layer.weight.copy_(0.1 * sizes * pattern)
    form = tnn.Latent(shape, decoder)
    tnn.attach(layer, "weight", form)
    symbols = form.parameters_of(tnn.original_of(layer, form)).symbols.reshape(-1, 4)
    np.testing.assert_array_equal(symbols[:, 0], sizes.reshape(-1).numpy())
    assert not symbols[:, 1:].any()
    layer.weight.square().sum().backward()
    assert decoder.matrix.grad is not None and bool((decoder.matrix.grad[0] != 0).all())


def test_parts_of_a_sum_take_what_others_leave() -> None:
    layer = nn.Linear(40, 30, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(30, 40).sign() * 0.1)
        layer.weight[3, 5] = 2.0
    form = tnn.Summed([tnn.Fitted(Binary()), tnn.Masked((30, 40), Prune(keep=1))])
    before = layer.weight.detach().clone()
    tnn.attach(layer, "weight", form)
    layer.eval()
    torch.testing.assert_close(layer.weight.detach(), before, rtol=0, atol=0.01)
    assert len(form.parameters_of(tnn.original_of(layer, form)).parts) == 2


def test_what_is_wrong_is_said() -> None:
    layer = nn.Linear(3, 2)
    with pytest.raises(SchemeError, match=r"expected \(3, 2\), found \(2, 3\)"):
        tnn.attach(layer, "weight", tnn.Latent((3, 2)))
    form = tnn.attach(layer, "weight", tnn.Fitted(Uniform(bits=4)))
    with pytest.raises(SchemeError, match="has a parametrization already"):
        tnn.attach(layer, "weight", tnn.Fitted(Uniform(bits=4)))
    with torch.no_grad():
        tnn.original_of(layer, form).fill_(float("nan"))
    with pytest.raises(SchemeError, match="NaN or infinity"):
        form.parameters_of(tnn.original_of(layer, form))
    with pytest.raises(SchemeError, match="straight_through or truncated"):
        tnn.Fitted(Uniform(bits=4), gradient="none")  # type: ignore[arg-type]
