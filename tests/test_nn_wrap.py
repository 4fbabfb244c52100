# SPDX-License-Identifier: Apache-2.0
"""Models by recipe, and back."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import toolkit
import toolkit.nn as tnn
from passes import Recipe
from passes.schemes import Latent, LearnedPoints, Transform, Uniform

torch.set_num_threads(1)

RECIPE = """
version: 1
rules:
  - {op_type: Conv, role: weight, settings: {stages: [{latent: {domain: dft, ema_decay: 0.9}}]}}
  - {match: '*.bias', max_size: 40, settings: {stages: [{latent: {step: 0.01, shared: biases}}]}}
  - regex: 'rows\\..*'
    role: weight
    settings: {stages: [{prune: {fraction: 0.25}}, {codebook: {entries: 8}}]}
  - {node: 'low*', role: weight, settings: {stages: [{low_rank: {rank: 3}}]}}
  - {op_type: Gather, settings: {stages: [{learned_points: {count: 9, granularity: tensor}}]}}
  - {op_type: LSTM, role: recurrent, settings: {bits: 4, granularity: row}}
  - {match: last.weight, settings: {stages: [{latent: {relative_step: 0.2, rate: factorized}}]}}
default: {stages: [{latent: {}}]}
"""


class ManyKinds(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(20, 16)
        self.memory = nn.LSTM(16, 12, batch_first=True)
        self.conv = nn.Conv1d(12, 10, 3, padding=1)
        self.rows = nn.Linear(10, 30)
        self.low = nn.Linear(30, 30)
        self.mid = nn.Linear(30, 20)
        self.last = nn.Linear(20, 5)

    def forward(self, words: Tensor) -> Tensor:
        x, _ = self.memory(self.table(words))
        x = torch.relu(self.conv(x.transpose(1, 2))).transpose(1, 2)
        x = torch.relu(self.mid(torch.relu(self.low(torch.relu(self.rows(x))))))
        result: Tensor = self.last(x)
        return result


WORDS = torch.arange(14).reshape(2, 7)


def many_kinds() -> ManyKinds:
    torch.manual_seed(0)
    return ManyKinds()


def test_each_tensor_gets_the_form_that_the_recipe_asks_for() -> None:
    net = tnn.wrap(many_kinds(), Recipe.parse(RECIPE))
    forms = {name: form for name, _, form in tnn.parametrizations(net)}
    kinds = {name: type(form).__name__ for name, form in forms.items()}
    assert kinds["conv.weight"] == kinds["mid.weight"] == kinds["last.weight"] == "Latent"
    assert kinds["rows.weight"] == "Masked" and kinds["low.weight"] == "Factored"
    assert kinds["table.weight"] == "LearnedPoints" and kinds["memory.weight_hh_l0"] == "Fitted"
    assert isinstance(forms["conv.weight"].decoder, tnn.FrequencyDecoder)
    assert isinstance(forms["last.weight"].bits, tnn.FactorizedPrior)
    assert isinstance(forms["mid.weight"].bits, tnn.CodecRate)
    assert forms["rows.weight"].density == pytest.approx(0.25, abs=0.01)
    assert forms["rows.bias"].decoder is forms["last.bias"].decoder
    assert "memory.bias_ih_l0" not in forms  # 48 elements, so the rule does not apply; minor: kept


def test_training_and_unwrapping() -> None:
    net = tnn.wrap(many_kinds(), Recipe.parse(RECIPE))
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-3)
    for _ in range(3):
        optimiser.zero_grad()
        (net(WORDS).square().mean() + 1e-6 * tnn.rate_bits(net)).backward()
        optimiser.step()
        tnn.update_averages(net)
    net.eval()
    with torch.no_grad():
        before = net(WORDS)
    weights = {name: p.decode() for name, p in tnn.fitted_parameters(net).items()}
    assert tnn.compressed_bytes(net) < tnn.plain_bytes(net)
    plain = tnn.unwrap(net)
    assert not list(tnn.parametrizations(plain))
    state = plain.state_dict()
    assert set(state) == set(many_kinds().state_dict())
    for name, weight in weights.items():
        np.testing.assert_array_equal(state[name].numpy(), weight)
    with torch.no_grad():
        assert torch.equal(plain(WORDS), before)
    other = many_kinds()
    other.load_state_dict(state)


def test_an_export_of_all_kinds(tmp_path: object) -> None:
    net = tnn.wrap(many_kinds(), Recipe.parse(RECIPE))
    report = toolkit.export(net, WORDS, f"{tmp_path}/small.onnx", keep_names=True)
    rows = {row.name for row in report.encoded}
    assert {"table.weight", "memory.weight_ih_l0", "mid.weight", "last.weight"} <= rows
    assert report.largest_difference < 1e-5


def test_operators_of_the_graph() -> None:
    """A product that no module says it is."""

    class Product(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.matrix = nn.Parameter(torch.randn(8, 6))

        def forward(self, x: Tensor) -> Tensor:
            return x @ self.matrix

    recipe = Recipe.parse("version: 1\nrules: [{op_type: MatMul, settings: {bits: 4}}]")
    with pytest.raises(toolkit.InputError, match="the rule matches no weight"):
        tnn.wrap(Product(), recipe)
    net = tnn.wrap(Product(), recipe, example=torch.randn(2, 8))
    ((name, _, form),) = tnn.parametrizations(net)
    assert name == "matrix" and isinstance(form, tnn.Fitted)


def test_a_recipe_means_the_same_for_files_and_for_training() -> None:
    """Before training a latent is what `toolkit compress` makes of the same recipe."""
    torch.manual_seed(0)
    for options in ({}, {"step": 0.03}, {"granularity": "row"}, {"granularity": "column"}):
        layer = nn.Linear(24, 16, bias=False)
        scheme = Latent(**options)
        expected = scheme.fit(layer.weight.detach().numpy()).decode()
        tnn.attach(layer, "weight", tnn.form_of(scheme, layer.weight))
        layer.eval()
        np.testing.assert_allclose(layer.weight.detach().numpy(), expected, rtol=2e-6)
    layer = nn.Conv2d(3, 4, 3)
    scheme = Latent(domain="dct", step=0.05)
    expected = scheme.fit(layer.weight.detach().numpy()).decode()
    tnn.attach(layer, "weight", tnn.form_of(scheme, layer.weight))
    layer.eval()
    np.testing.assert_allclose(layer.weight.detach().numpy(), expected, rtol=0, atol=1e-6)
    layer = nn.Linear(24, 16, bias=False)
    points = LearnedPoints(4, granularity="tensor")
    expected = points.fit(layer.weight.detach().numpy()).decode()
    tnn.attach(layer, "weight", tnn.form_of(points, layer.weight))
    layer.eval()
    np.testing.assert_array_equal(layer.weight.detach().numpy(), expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("version: 2", "version"),
        ("version: 1\ndefault: {stages: [{latent: {step: -1}}]}", "step must be positive"),
        ("version: 1\ndefault: {stages: [{latent: {domain: dxt}}]}", "none of dct, dst, dft"),
        ("version: 1\ndefault: {stages: [{latent: {matrix: true, granularity: row}}]}", "only one"),
        ("version: 1\ndefault: {stages: [{learned_points: {count: 0}}]}", "count must be"),
        ("version: 1\ndefault: {stages: [prune], joint: [prune]}", "exactly one of"),
        (
            "version: 1\ndefault: {stages: [{latent: {}}], joint: [latent]}",
            "'latent' cannot be shared",
        ),
        (
            "version: 1\ndefault: {stages: [{low_rank: {energy: 0.5}}, {uniform: {bits: 4}}], "
            "joint: [low_rank, uniform]}",
            "low_rank",
        ),
        ("version: 1\nrules: [{match: 'x*', settings: {bits: 4}}]", "matches no weight"),
    ],
)
def test_wrong_recipes(text: str, message: str, tmp_path: object) -> None:
    path = f"{tmp_path}/recipe.yaml"
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    with pytest.raises(toolkit.InputError, match=message):
        tnn.wrap(nn.Sequential(nn.Linear(4, 4)), path)


def test_forms_of_schemes() -> None:
    weight = torch.randn(6, 8)
    assert isinstance(tnn.form_of(Uniform(bits=4), weight), tnn.Fitted)
    assert isinstance(tnn.form_of(Transform("dct", relative_step=0.5), weight), tnn.Fitted)


def test_rows_are_output_channels() -> None:
    """Of transposed convolutions, too, whose output channels are axis 1."""
    torch.manual_seed(0)
    for stages, count in (
        ("{uniform: {bits: 4, granularity: row}}", 7),
        ("{prune: {keep: 2, granularity: filter}}", None),
    ):
        net = nn.Sequential(nn.ConvTranspose2d(5, 7, 3))
        recipe = f"version: 1\nrules: [{{match: '*.weight', settings: {{stages: [{stages}]}}}}]"
        net = tnn.wrap(net, Recipe.parse(recipe)).eval()
        (fitted,) = tnn.fitted_parameters(net).values()
        if count is None:
            kept = (net[0].weight != 0).flatten(2).any(2)
            assert kept.any(0).sum() == 2 and kept[:, kept.any(0)].all()
        else:
            assert fitted.scale.size == count
