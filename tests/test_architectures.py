# SPDX-License-Identifier: Apache-2.0
"""Architectures: the published numbers of parameters, shapes, gradients, and the way to ONNX."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="architectures are torch modules")

from models.architectures.alexnet import alexnet  # noqa: E402
from models.architectures.densenet import (  # noqa: E402
    DenseNet,
    densenet_121,
    densenet_bc_cifar,
)
from models.architectures.layer_string import (  # noqa: E402
    STUDENTS,
    TEACHER,
    layer_string_net,
)
from models.architectures.lenet import lenet_5_caffe, lenet_300_100  # noqa: E402
from models.architectures.mobilenet import mobilenet  # noqa: E402
from models.architectures.nin import nin  # noqa: E402
from models.architectures.resnet import ResNet, resnet_18, resnet_50  # noqa: E402
from models.architectures.resnet_cifar import CifarResNet  # noqa: E402
from models.architectures.seq2seq import Seq2Seq  # noqa: E402
from models.architectures.transformer import SmallTransformer  # noqa: E402
from models.architectures.vgg import vgg_16  # noqa: E402
from models.architectures.wide_resnet import WideResNet  # noqa: E402

Build = Callable[[], "torch.nn.Module"]

PARAMETERS: list[tuple[str, Build, int]] = [
    ("LeNet-300-100", lenet_300_100, 266_610),
    ("LeNet-5", lenet_5_caffe, 431_080),
    ("teacher", lambda: layer_string_net(TEACHER, batch_norm=False), 5_339_350),
    ("student 1", lambda: layer_string_net(STUDENTS["1.0M"], batch_norm=False), 998_835),
    ("student 2", lambda: layer_string_net(STUDENTS["0.3M"], batch_norm=False), 317_395),
    ("student 3", lambda: layer_string_net(STUDENTS["0.1M"], batch_norm=False), 111_235),
    ("NiN", nin, 966_986),
    ("VGG-16", vgg_16, 14_728_266),
    ("ResNet-20", lambda: CifarResNet(20), 269_722),
    ("ResNet-32", lambda: CifarResNet(32), 464_154),
    ("ResNet-56", lambda: CifarResNet(56), 853_018),
    ("ResNet-110", lambda: CifarResNet(110), 1_727_962),
    ("ResNet-18", resnet_18, 11_689_512),
    ("ResNet-50", resnet_50, 25_557_032),
    ("WRN-28-10", WideResNet, 36_479_194),
    ("WRN-16-4", lambda: WideResNet(16, 4), 2_748_890),
    ("AlexNet", alexnet, 2_472_266),
    ("DenseNet-BC 100", densenet_bc_cifar, 769_162),
    ("DenseNet-121", densenet_121, 7_978_856),
    ("MobileNet", mobilenet, 4_231_976),
    # 4·2·4·500² + 4·8·500 of the LSTMs, 500² + 2·500² of the attention, embeddings and output.
    (
        "seq2seq",
        lambda: Seq2Seq(1000, 1200),
        8_016_000 + 750_000 + 2200 * 500 + 501 * 1200,
    ),
    (
        "transformer",
        lambda: SmallTransformer(500, 64, 128, 4),
        500 * 128 + 64 * 128 + 4 * (12 * 128**2 + 13 * 128) + 2 * 128,
    ),
]


@pytest.mark.parametrize(
    ("build", "count"), [row[1:] for row in PARAMETERS], ids=[row[0] for row in PARAMETERS]
)
def test_numbers_of_parameters_are_the_published_ones(build: Build, count: int) -> None:
    with torch.device("meta"):
        module = build()
    assert sum(parameter.numel() for parameter in module.parameters()) == count


def images(*shape: int) -> torch.Tensor:
    return torch.rand(2, *shape, generator=torch.Generator().manual_seed(0))


SMALL: dict[str, tuple[Build, tuple[torch.Tensor, ...], tuple[int, ...]]] = {
    "lenet-300-100": (lenet_300_100, (images(1, 28, 28),), (2, 10)),
    "lenet-5": (lenet_5_caffe, (images(1, 28, 28),), (2, 10)),
    "layer string": (
        lambda: layer_string_net("8c3*2-mp-dp-6c5-mp-dp-20fc-dp-12fc", num_classes=7),
        (images(3, 32, 32),),
        (2, 7),
    ),
    "nin": (nin, (images(3, 32, 32),), (2, 10)),
    "vgg": (vgg_16, (images(3, 32, 32),), (2, 10)),
    "cifar resnet": (lambda: CifarResNet(8), (images(3, 32, 32),), (2, 10)),
    "resnet": (lambda: ResNet((1, 1, 1, 1), False, 9), (images(3, 64, 64),), (2, 9)),
    "bottleneck resnet": (lambda: ResNet((1, 1, 1, 1), True, 9), (images(3, 64, 64),), (2, 9)),
    "wide resnet": (lambda: WideResNet(10, 2), (images(3, 32, 32),), (2, 10)),
    "alexnet": (alexnet, (images(3, 32, 32),), (2, 10)),
    "densenet": (lambda: densenet_bc_cifar(16), (images(3, 32, 32),), (2, 10)),
    "large densenet": (
        lambda: DenseNet((1, 2), 8, 16, 5, small_images=False),
        (images(3, 64, 64),),
        (2, 5),
    ),
    "mobilenet": (lambda: mobilenet(11, 0.25), (images(3, 64, 64),), (2, 11)),
    "small mobilenet": (
        lambda: mobilenet(10, 0.25, small_images=True),
        (images(3, 32, 32),),
        (2, 10),
    ),
    "seq2seq": (
        lambda: Seq2Seq(20, 30, 16, 2),
        (torch.arange(10).reshape(2, 5), torch.arange(8).reshape(2, 4)),
        (2, 4, 30),
    ),
    "transformer": (
        lambda: SmallTransformer(40, 16, 32, 2),
        (torch.arange(12).reshape(2, 6),),
        (2, 6, 40),
    ),
}


@pytest.mark.parametrize("name", SMALL)
def test_every_parameter_gets_a_gradient(name: str) -> None:
    build, inputs, shape = SMALL[name]
    torch.manual_seed(0)
    module = build()
    logits = module(*inputs)
    assert logits.shape == shape
    targets = torch.arange(logits[..., 0].numel()) % shape[-1]
    torch.nn.functional.cross_entropy(logits.flatten(0, -2), targets).backward()
    for key, parameter in module.named_parameters():
        assert parameter.grad is not None, key
        assert bool(torch.isfinite(parameter.grad).all()), key
        assert bool(parameter.grad.any()), key


@pytest.mark.parametrize("name", SMALL)
def test_onnx_runtime_computes_the_same(name: str) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    build, inputs, _ = SMALL[name]
    torch.manual_seed(0)
    module = build().eval()
    program = torch.onnx.export(module, inputs, dynamo=True, verbose=False)
    buffer = io.BytesIO()
    program.save(buffer)
    session = onnxruntime.InferenceSession(buffer.getvalue(), providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    feeds = {key: tensor.numpy() for key, tensor in zip(names, inputs, strict=True)}
    (found,) = session.run(None, feeds)
    with torch.no_grad():
        expected = module(*inputs).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("layers", ["7c4", "10fc-mp", "10fc-5c3", "c3", "8c3--mp", ""])
def test_a_wrong_layer_string_is_refused(layers: str) -> None:
    with pytest.raises(ValueError, match="has no place there"):
        layer_string_net(layers)


@pytest.mark.parametrize("build", [CifarResNet, WideResNet, densenet_bc_cifar])
def test_a_depth_that_has_no_blocks_is_refused(build: Callable[[int], object]) -> None:
    with pytest.raises(ValueError, match="depth is 17, expected 6 n"):
        build(17)


def test_greedy_decoding_follows_the_logits() -> None:
    torch.manual_seed(0)
    module = Seq2Seq(20, 6, 16, 1).eval()
    source = torch.arange(10).reshape(2, 5)
    found = module.greedy(source, start=0, end=5, limit=7)
    assert found.shape[1] <= 7
    inputs = torch.cat([torch.zeros(2, 1, dtype=torch.int64), found[:, :-1]], 1)
    again = module(source, inputs).argmax(-1)
    for row, line in zip(found, again, strict=True):
        ends = (row == 5).nonzero()
        stop = int(ends[0]) + 1 if len(ends) else len(row)
        assert row[:stop].tolist() == line[:stop].tolist()


def test_a_transformer_does_not_look_ahead() -> None:
    torch.manual_seed(0)
    module = SmallTransformer(40, 16, 32, 2).eval()
    tokens = torch.arange(12).reshape(2, 6)
    changed = tokens.clone()
    changed[:, 4:] = 39
    with torch.no_grad():
        first, second = module(tokens), module(changed)
    assert torch.equal(first[:, :4], second[:, :4])
    assert not torch.equal(first[:, 4:], second[:, 4:])
