# SPDX-License-Identifier: Apache-2.0
"""`toolkit.export`: what is in the file is what was trained, in every way to run it."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import runtime
import toolkit
import toolkit.nn as tnn
from passes.schemes import Binary, Codebook, Prune, Scaled, Sum, Transform, Uniform
from toolkit.verify import decoded_weights

torch.set_num_threads(1)


class SmallNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 12, 5)
        self.norm = nn.BatchNorm2d(12)
        self.hidden = nn.Linear(12 * 12 * 12, 64)
        self.last = nn.Linear(64, 10)

    def forward(self, images: Tensor) -> Tensor:
        x = torch.max_pool2d(torch.relu(self.norm(self.conv(images))), 2)
        x = torch.relu(self.hidden(x.flatten(1)))
        result: Tensor = self.last(x)
        return result


def small_net(sparse: float = 0.1) -> SmallNet:
    """With weights that are worth compressing, and a normalisation that does something."""
    torch.manual_seed(0)
    net = SmallNet()
    with torch.no_grad():
        net.hidden.weight *= torch.rand_like(net.hidden.weight) < sparse
        net.norm.running_mean += 0.1
        net.norm.running_var *= 1.3
    return net


IMAGES = torch.from_numpy(np.random.default_rng(0).random((3, 1, 28, 28), np.float32))


def attach_latents(net: nn.Module) -> None:
    for module in net.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            tnn.attach(module, "weight", tnn.Latent(module.weight.shape, ema_decay=0.9))
            tnn.attach(module, "bias", tnn.Latent(module.bias.shape))


def stock_weights(path: Path, names: list[str], x: Tensor) -> dict[str, np.ndarray]:
    """What stock ONNX Runtime makes of the weights, by the function bodies of the file."""
    model = onnx.load(path)
    made = {name for node in model.graph.node for name in node.output}
    wanted = [name for name in names if name in made]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in wanted)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    feed = {session.get_inputs()[0].name: x.numpy()}
    return dict(zip(wanted, session.run(wanted, feed), strict=True))


def outputs(path: Path, mode: str, images: Tensor) -> np.ndarray:
    providers = ["CPUExecutionProvider"]
    if mode == "stock":
        session = onnxruntime.InferenceSession(str(path), providers=providers)
    else:
        session = runtime.InferenceSession(str(path), providers=providers, mode=mode)  # type: ignore[arg-type]
    return np.asarray(session.run(None, {session.get_inputs()[0].name: images.numpy()})[0])


def test_weights_are_those_of_evaluation_in_all_ways(tmp_path: Path) -> None:
    net = small_net()
    attach_latents(net)
    path = tmp_path / "small.onnx"
    report = toolkit.export(net, IMAGES, path, portable="always")
    assert net.training and report.num_bytes == path.stat().st_size
    net.eval()
    expected = {
        name: getattr(m, name.rpartition(".")[2]) for name, m, _ in tnn.parametrizations(net)
    }
    stored = {t.name: onnx.numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}
    stock = stock_weights(path, list(report.names.values()), IMAGES)
    load = dict(decoded_weights(path, frozenset(report.names.values())))
    assert {"hidden.weight", "last.weight", "conv.weight"} <= set(expected)
    for name, weight in expected.items():
        wanted = weight.detach().numpy()
        for found in (load, stock):
            value = found.get(report.names[name], stored.get(report.names[name]))
            assert value is not None
            np.testing.assert_array_equal(value.view(np.int32), wanted.view(np.int32))
    with torch.no_grad():
        for images in (IMAGES, torch.cat([IMAGES, IMAGES])):  # the batch is free
            for mode in ("load", "stream", "stock"):
                np.testing.assert_allclose(
                    outputs(path, mode, images), net(images).numpy(), rtol=0, atol=1e-5
                )


def test_symbols_are_not_quantised_again(tmp_path: Path) -> None:
    """A step that no fit to the decoded weight would find: all symbols are even."""
    layer = nn.Linear(64, 128, bias=False)
    decoder = tnn.AffineDecoder(0.01)
    form = tnn.attach(layer, "weight", tnn.Latent((128, 64), decoder))
    with torch.no_grad():
        tnn.original_of(layer, form).copy_(0.02 * torch.randint(-3, 4, (128, 64)))
    path = tmp_path / "small.onnx"
    report = toolkit.export(layer, torch.randn(2, 64), path)
    (row,) = report.encoded
    scales = [onnx.numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer]
    step = decoder.step().detach().numpy()
    assert any(s.shape == () and s == step for s in scales)
    assert row.num_elements == 128 * 64


SIDE = 96
SQUARE = (SIDE, SIDE)
FORMS = {
    "uniform": lambda: tnn.Fitted(Uniform(bits=4, granularity="row")),
    "codebook": lambda: tnn.Fitted(Codebook(entries=8)),
    "buckets": lambda: tnn.Fitted(Scaled(Codebook(entries=4), granularity="bucket")),
    "sum": lambda: tnn.Fitted(Sum((Binary(), Prune(fraction=0.05)))),
    "transform": lambda: tnn.Fitted(Transform("dct", block=16, relative_step=0.5)),
    "frequency domain": lambda: tnn.Latent(SQUARE, tnn.FrequencyDecoder(SQUARE, block=32)),
    "matrix": lambda: tnn.Latent(SQUARE, tnn.MatrixDecoder(SQUARE, block=8)),
    "low frequencies": lambda: tnn.Transformed(SQUARE, "dct", keep=0.25),
    "learned cosines": lambda: tnn.LearnedCosines(SQUARE),
    "factors": lambda: tnn.Factored(SQUARE, 4, inner=Uniform(bits=8)),
    "points": lambda: tnn.LearnedPoints(5),
    "summed": lambda: tnn.Summed([tnn.Fitted(Binary()), tnn.Masked(SQUARE, Prune(fraction=0.1))]),
    "pruned floats": lambda: tnn.Masked(SQUARE, Prune(fraction=0.1)),
    "pruned codebook": lambda: tnn.Masked(SQUARE, Prune(fraction=0.1), Codebook(entries=8)),
}


def test_every_form_is_stored_as_it_is(tmp_path: Path) -> None:
    """One network with a layer for each form."""
    torch.manual_seed(0)
    layers = {name: nn.Linear(SIDE, SIDE) for name in FORMS}
    net = nn.Sequential(OrderedDict((f"{i}", layer) for i, layer in enumerate(layers.values())))
    for name, layer in layers.items():
        with torch.no_grad():
            layer.weight *= 2
        form = FORMS[name]()
        tnn.attach(layer, "weight", form)
        form.fit(tnn.original_of(layer, form))
    path, x = tmp_path / "small.onnx", torch.randn(3, SIDE)
    report = toolkit.export(net, x, path, portable="always")
    assert len(report.encoded) == len(FORMS)
    net.eval()
    stored = {f"{i}.weight": report.names[f"{i}.weight"] for i in range(len(FORMS))}
    load = dict(decoded_weights(path, frozenset(stored.values())))
    stock = stock_weights(path, list(stored.values()), x)
    for (name, old), layer in zip(zip(FORMS, stored, strict=True), net, strict=True):
        weight = layer.weight.detach().numpy()
        (form,) = (form for _, _, form in tnn.parametrizations(layer))
        is_exact = form.parameters_of(tnn.original_of(layer, form)).is_exact
        assert is_exact == (name != "factors")
        for found in (load[stored[old]], stock[stored[old]]):
            if is_exact:
                np.testing.assert_array_equal(found, weight, err_msg=name)
            else:
                np.testing.assert_allclose(found, weight, rtol=0, atol=1e-6)
    with torch.no_grad():
        expected = net(x).numpy()
    for mode in ("load", "stream", "stock"):
        found = outputs(path, mode, x)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_normalisations_take_two_numbers_a_channel(tmp_path: Path) -> None:
    """Weights stay as trained; a layer that is not compressed takes the normalisation in."""
    net = small_net()
    tnn.attach(net.conv, "weight", tnn.Latent(net.conv.weight.shape))
    for is_trained in (True, False):
        report = toolkit.export(net, IMAGES, tmp_path / "small.onnx")
        model = onnx.load(report.path)
        kinds = [node.op_type for node in model.graph.node]
        assert "BatchNormalization" not in kinds
        assert ("Mul" in kinds and "Add" in kinds) == is_trained
        net.eval()
        with torch.no_grad():
            expected = net(IMAGES).numpy()
        found = outputs(report.path, "load", IMAGES)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
        tnn.unwrap(net)


def test_names(tmp_path: Path) -> None:
    net = small_net()
    attach_latents(net)
    path = tmp_path / "small.onnx"
    report = toolkit.export(
        net, IMAGES, path, input_names=["a"], output_names=["b"], keep_names=True
    )
    model = onnx.load(path)
    assert model.graph.input[0].name == "a" and model.graph.output[0].name == "b"
    made = {name for node in model.graph.node for name in node.output}
    assert "hidden.weight" in made and report.names["hidden.weight"] == "hidden.weight"
    short = toolkit.export(net, IMAGES, tmp_path / "short.onnx")
    assert short.num_bytes < report.num_bytes
    dims = model.graph.input[0].type.tensor_type.shape.dim
    assert dims[0].dim_param and [d.dim_value for d in dims[1:]] == [1, 28, 28]


def test_a_fixed_batch(tmp_path: Path) -> None:
    report = toolkit.export(small_net(), IMAGES[:1], tmp_path / "one.onnx", dynamic_batch=False)
    dims = onnx.load(report.path).graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_value for d in dims] == [1, 1, 28, 28]


def test_from_a_state_dict_and_a_recipe(tmp_path: Path) -> None:
    state = {key: value.clone() for key, value in small_net(1.0).state_dict().items()}
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "version: 1\n"
        "rules:\n"
        "  - {match: 'hidden.*', op_type: Gemm, settings: {bits: 3}}\n"
        "  - {op_type: Conv, role: weight, settings: {scheme: codebook, entries: 8}}\n"
        "default: {bits: 8}\n"
    )
    report = toolkit.export(
        SmallNet, IMAGES, tmp_path / "small.onnx", state_dict=state, recipe=recipe, keep_names=True
    )
    schemes = {row.name: row.scheme for row in report.encoded}
    assert schemes["hidden.weight"] == "uniform" and schemes["conv.weight"] == "codebook"
    found = dict(decoded_weights(report.path))["hidden.weight"]
    expected = Uniform(bits=3).fit(state["hidden.weight"].numpy()).decode()
    np.testing.assert_array_equal(found, expected)


def test_a_recipe_for_what_has_no_form(tmp_path: Path) -> None:
    net = small_net()
    tnn.attach(net.hidden, "weight", tnn.Latent(net.hidden.weight.shape))
    report = toolkit.export(net, IMAGES, tmp_path / "small.onnx", recipe="uniform-8bit")
    assert {row.name for row in report.encoded} >= {
        report.names["hidden.weight"],
        report.names["last.weight"],
    }


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    path = tmp_path / "small.onnx"
    with pytest.raises(toolkit.InputError, match="a batch of at least 2 samples, found 1"):
        toolkit.export(small_net(), IMAGES[:1], path)
    with pytest.raises(toolkit.InputError, match="state dict does not fit"):
        toolkit.export(SmallNet, IMAGES, path, state_dict=OrderedDict(a=torch.zeros(1)))
    with pytest.raises(toolkit.InputError, match="input_names: expected 1 different names"):
        toolkit.export(small_net(), IMAGES, path, input_names=["a", "b"])
    with pytest.raises(toolkit.InputError, match="no ready recipe 'nothing'"):
        toolkit.export(small_net(), IMAGES, path, recipe="nothing")
    assert not path.exists()


def test_a_file_of_weights_that_cost_nothing_is_small(tmp_path: Path) -> None:
    """LeNet-300-100: what graph, names, headers and nodes take."""
    sizes = (784, 300, 100, 10)
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs, out in zip(sizes, sizes[1:], strict=False):
        layers += [nn.Linear(inputs, out), nn.ReLU()]
    net = nn.Sequential(*layers[:-1])
    shared = tnn.AffineDecoder(0.01)
    for module in net.modules():
        if isinstance(module, nn.Linear):
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)
            tnn.attach(module, "weight", tnn.Latent(module.weight.shape, tnn.AffineDecoder(0.1)))
            tnn.attach(module, "bias", tnn.Latent(module.bias.shape, shared))
    report = toolkit.export(net, IMAGES, tmp_path / "empty.onnx")
    assert report.num_bytes <= 930
