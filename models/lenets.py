# SPDX-License-Identifier: Apache-2.0
"""LeNet-300-100 and LeNet-5 (Caffe's form) for MNIST digits, trained and pruned here.

No registry holds their weights. They are trained as Han et al. 2015, "Learning both weights and
connections for efficient neural networks", section 3 do: train, prune by absolute value, train what
is left, here in two steps. Takes some minutes once; the weights are then kept in the cache. Images
are within 0 to 1 without a shift, so that pixels of the border stay 0.
"""

from __future__ import annotations

import hashlib
import inspect
import io
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from models.classification import top1_accuracy
from models.fetch import cache_folder, write_atomically
from models.mnist_cnn import mnist_images, mnist_labels
from models.network import Feeds, Run
from models.onnx_graph import FLOAT, GraphBuilder

Name = Literal["lenet_300_100", "lenet_5"]
Arrays = dict[str, npt.NDArray[np.float32]]

LAYERS: dict[str, tuple[str, ...]] = {
    "lenet_300_100": ("ip1", "ip2", "ip3"),
    "lenet_5": ("conv1", "conv2", "ip1", "ip2"),
}
_EPOCHS = {"lenet_300_100": (5, 2, 3), "lenet_5": (3, 1, 2)}
_BATCH, _RATE, _MOMENTUM, _DECAY = 100, 0.05, 0.9, 5e-4
_IMAGES = 60_000


def pruned_weights(name: Name, kept: Mapping[str, float]) -> Arrays:
    """Weights and biases of a network trained with the share ``kept`` of each layer's weights.

    Args:
        name: Which network.
        kept: layer -> share of its weights that are not zero, 0 to 1.

    Returns:
        "ip1.weight" -> float32 (out, in) or (out, in, height, width), "ip1.bias" -> (out,) and so
        on.

    Raises:
        DataUnavailable: the images cannot be fetched.
    """
    told = [_EPOCHS, _BATCH, _RATE, _MOMENTUM, _DECAY, _IMAGES, sorted(kept.items())]
    from models.architectures import lenet

    source = "".join(inspect.getsource(part) for part in (lenet, _trained, _train))
    key = hashlib.sha256(f"{source}{told}".encode()).hexdigest()[:12]
    path = cache_folder() / "lenets" / f"{name}-{key}.npz"
    if not path.exists():
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **_trained(name, kept))
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, buffer.getvalue())
    with np.load(path) as stored:
        return dict(stored)


def _module(name: Name) -> Any:
    """The untrained torch module; its layers have the names of `LAYERS`."""
    from models.architectures.lenet import lenet_5_caffe, lenet_300_100

    return lenet_300_100() if name == "lenet_300_100" else lenet_5_caffe()


def _trained(name: Name, kept: Mapping[str, float]) -> Arrays:
    import torch

    from passes.schemes import Prune

    torch.manual_seed(0)
    torch.set_num_threads(1)  # two wait for each other where cores are shared, and differ in sums
    module = _module(name)
    images = torch.from_numpy(mnist_images("train")[:_IMAGES].copy())
    labels = torch.from_numpy(mnist_labels("train")[:_IMAGES])
    weights = {layer: getattr(module, layer).weight for layer in LAYERS[name]}
    masks: dict[str, Any] = {}
    for stage, epochs in enumerate(_EPOCHS[name]):
        for layer, weight in weights.items():
            if stage:  # first half of the way in the exponent, then all of it
                fraction = kept[layer] ** (stage / (len(_EPOCHS[name]) - 1))
                mask = Prune(fraction=fraction).fit(weight.detach().numpy()).mask
                masks[layer] = torch.from_numpy(mask)
        _train(module, images, labels, weights, masks, epochs)
    return {key: value.numpy().copy() for key, value in module.state_dict().items()}


def _train(
    module: Any,
    images: Any,
    labels: Any,
    weights: Mapping[str, Any],
    masks: Mapping[str, Any],
    epochs: int,
) -> None:
    """Stochastic gradient descent; weights outside of the masks are set to 0 after each step."""
    import torch

    optimiser = torch.optim.SGD(module.parameters(), _RATE, _MOMENTUM, weight_decay=_DECAY)
    steps = epochs * len(images) // _BATCH
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps, _RATE / 100)
    for _ in range(epochs):
        order = torch.randperm(len(images))
        for start in range(0, len(images), _BATCH):
            batch = order[start : start + _BATCH]
            loss = torch.nn.functional.cross_entropy(module(images[batch]), labels[batch])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            with torch.no_grad():
                for layer, mask in masks.items():
                    weights[layer].mul_(mask)


def onnx_bytes(name: Name, arrays: Arrays) -> bytes:
    """The network as a float ONNX file; dense weights are stored (in, out)."""
    graph = GraphBuilder(name, opset=17)
    if name == "lenet_5":
        value = "images"
        for layer in ("conv1", "conv2"):
            value = graph.conv(value, layer, arrays[f"{layer}.weight"], arrays[f"{layer}.bias"])
            value = graph.node(
                "MaxPool", [value], f"{layer}.pool", kernel_shape=[2, 2], strides=[2, 2]
            )
        value = graph.node("Flatten", [value], "flat")
    else:
        value = graph.node("Flatten", ["images"], "flat")
    dense = [layer for layer in LAYERS[name] if layer.startswith("ip")]
    for layer in dense:
        value = graph.linear(value, layer, arrays[f"{layer}.weight"].T, arrays[f"{layer}.bias"])
        if layer != dense[-1]:
            value = graph.node("Relu", [value], f"{layer}.relu")
    graph.node("Identity", [value], "scores")
    return graph.finish(
        {"images": (FLOAT, ("batch", 1, 28, 28))}, {"scores": (FLOAT, ("batch", 10))}
    )


def error_percent(run: Run) -> float:
    """Percent of the official 10,000 test images that are told wrong."""
    feeds: Feeds = {"images": mnist_images("t10k")}
    return 100.0 - top1_accuracy(run, feeds, mnist_labels("t10k"), batch=500).value
