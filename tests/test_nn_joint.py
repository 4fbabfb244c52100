# SPDX-License-Identifier: Apache-2.0
"""Forms of several tensors that share stages: one budget, one codebook, one scale, one cost."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

import runtime
import toolkit
import toolkit.nn as tnn
from passes import Recipe
from passes.schemes import LowRank, PruneParameters

torch.set_num_threads(1)

NAMES = ("0.weight", "2.weight", "4.weight")
STAGES = {
    "budget": "stages: [{prune: {fraction: 0.2}}], joint: [prune]",
    "budget, own codebooks": "stages: [{prune: {fraction: 0.3}}, {codebook: {entries: 4}}], "
    "joint: [prune]",
    "budget and codebook": "stages: [{prune: {fraction: 0.3}}, {codebook: {entries: 4}}], "
    "joint: [prune, codebook]",
    "codebook behind own masks": "stages: [{prune: {fraction: 0.3}}, {codebook: {entries: 4}}], "
    "joint: [codebook]",
    "codebook": "stages: [{codebook: {entries: 4}}], joint: [codebook]",
    "scale": "stages: [{uniform: {bits: 4}}], joint: [uniform]",
    "sign": "stages: [binary], joint: [binary]",
    "ranks": "stages: [{low_rank: {fraction: 0.4}}], joint: [low_rank]",
}


def network() -> nn.Sequential:
    """Layers of quite different scales."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Linear(16, 40), nn.ReLU(), nn.Linear(40, 30), nn.ReLU(), nn.Linear(30, 4)
    )
    with torch.no_grad():
        net[2].weight.mul_(1.3)
    return net


def wrapped(stages: str, net: nn.Module | None = None) -> nn.Module:
    text = f"version: 1\nrules: [{{match: '*.weight', settings: {{{stages}}}}}]"
    return tnn.wrap(network() if net is None else net, Recipe.parse(text))


def trained(net: nn.Module, steps: int = 5) -> nn.Module:
    torch.manual_seed(1)
    x, labels = torch.randn(64, 16), torch.randint(0, 4, (64,))
    optimiser = torch.optim.SGD(net.parameters(), lr=0.05)
    for _ in range(steps):
        loss = nn.functional.cross_entropy(net(x), labels) + 1e-6 * tnn.rate_bits(net)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return net


def weights_of(net: nn.Module) -> dict[str, np.ndarray]:
    return {
        name: module.weight.detach().numpy().copy() for name, module, _ in tnn.parametrizations(net)
    }


@pytest.mark.parametrize("kind", STAGES)
def test_what_is_trained_is_stored_bit_for_bit(kind: str, tmp_path: object) -> None:
    net = trained(wrapped(STAGES[kind])).eval()
    weights = weights_of(net)
    assert tuple(weights) == NAMES
    for name, parameters in tnn.fitted_parameters(net).items():
        np.testing.assert_array_equal(parameters.decode(), weights[name])
    x = torch.randn(5, 16)
    y = net(x).detach()
    report = toolkit.export(net, x, f"{tmp_path}/net.onnx")
    session = runtime.InferenceSession(f"{tmp_path}/net.onnx", providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, {"input": x.numpy()})[0], y, atol=1e-5)
    assert report.ratio > 1
    plain = tnn.unwrap(copy.deepcopy(net))
    assert not list(tnn.parametrizations(plain)) and torch.equal(plain(x), y)
    assert len(list(tnn.parametrizations(net))) == 3


@pytest.mark.parametrize("kind", STAGES)
def test_it_trains_and_its_state_loads(kind: str) -> None:
    net = wrapped(STAGES[kind])
    before = weights_of(net)
    trained(net)
    after = weights_of(net)
    assert all(not np.array_equal(before[name], after[name]) for name in NAMES)
    other = wrapped(STAGES[kind])
    other.load_state_dict(net.state_dict())
    found = weights_of(other)
    for name in NAMES:
        np.testing.assert_array_equal(found[name], after[name])
    copied = copy.deepcopy(net)
    trained(copied, 1)
    for name in NAMES:  # the copy has its own group
        np.testing.assert_array_equal(weights_of(net)[name], after[name])


def test_one_budget_goes_to_the_largest_weights_of_all() -> None:
    plain = network()
    arrays = {name: plain.get_parameter(name).detach().numpy() for name in NAMES}
    everything = np.concatenate([np.abs(array).ravel() for array in arrays.values()])
    count = round(0.2 * everything.size)
    least = np.sort(everything)[-count]
    net = wrapped(STAGES["budget"])
    for name, weight in weights_of(net).items():
        np.testing.assert_array_equal(weight != 0, np.abs(arrays[name]) >= least)
    masks = {name: form.mask.clone() for name, _, form in tnn.parametrizations(net)}
    trained(net)
    for name, _, form in tnn.parametrizations(net):  # the mask stays, what it keeps moves
        assert torch.equal(form.mask, masks[name])
        assert (weights_of(net)[name][~masks[name].numpy()] == 0).all()
    with torch.no_grad():
        next(iter(tnn.parametrizations(net)))[1].parametrizations.weight.original.mul_(100)
    tnn.fit_all(net)
    densities = [float(form.mask.float().mean()) for _, _, form in tnn.parametrizations(net)]
    assert densities[0] > float(masks[NAMES[0]].float().mean())
    assert sum(int(form.mask.sum()) for _, _, form in tnn.parametrizations(net)) == count


def test_one_codebook_has_the_values_of_all() -> None:
    for kind in ("codebook", "budget and codebook", "codebook behind own masks"):
        net = trained(wrapped(STAGES[kind]))
        values = [set(np.unique(weight)) - {0.0} for weight in weights_of(net).values()]
        together = set.union(*values)
        assert len(together) <= 4
    alone = trained(wrapped(STAGES["budget, own codebooks"]))
    values = [set(np.unique(weight)) - {0.0} for weight in weights_of(alone).values()]
    assert len(set.union(*values)) > 4


def test_masked_weights_get_no_gradient() -> None:
    net = wrapped(STAGES["budget and codebook"])
    net(torch.randn(8, 16)).square().mean().backward()
    for _, original, form in tnn.originals(net):
        assert (original.grad[~form.mask] == 0).all() and (original.grad != 0).any()


def test_tensors_are_fitted_once_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    from toolkit.nn import joint

    net, count = wrapped(STAGES["codebook"]), 0
    fit = joint.fit_jointly

    def counted(*given: object) -> object:
        nonlocal count
        count += 1
        return fit(*given)

    monkeypatch.setattr(joint, "fit_jointly", counted)
    trained(net, 4)
    assert count == 3  # the first step finds the fit of wrapping
    net(torch.randn(2, 16))
    net(torch.randn(2, 16))
    assert count == 4


def test_ranks_share_one_budget() -> None:
    net = wrapped(STAGES["ranks"])
    forms = {name: form for name, _, form in tnn.parametrizations(net)}
    assert all(isinstance(form, tnn.Factored) for form in forms.values())
    shapes = {name: network().get_parameter(name).shape for name in NAMES}
    cost = sum(form.rank * sum(shapes[name]) for name, form in forms.items())
    budget = 0.4 * sum(shape.numel() for shape in shapes.values())
    assert budget - max(sum(shape) for shape in shapes.values()) < cost <= budget
    alone = {
        name: LowRank(fraction=0.4).fit(network().get_parameter(name).detach().numpy()).rank
        for name in NAMES
    }
    assert alone != {name: form.rank for name, form in forms.items()}


def test_each_rule_is_a_group() -> None:
    text = """
version: 1
rules:
  - {match: '0.weight', settings: {stages: [{prune: {fraction: 0.5}}], joint: [prune]}}
  - {match: '*.weight', settings: {stages: [{prune: {fraction: 0.1}}], joint: [prune]}}
"""
    net = tnn.wrap(network(), Recipe.parse(text))
    forms = {name: form for name, _, form in tnn.parametrizations(net)}
    assert float(forms["0.weight"].mask.float().mean()) == 0.5
    assert forms["2.weight"].group is forms["4.weight"].group is not forms["0.weight"].group
    fitted = tnn.fitted_parameters(net)
    assert all(isinstance(parameters, PruneParameters) for parameters in fitted.values())
