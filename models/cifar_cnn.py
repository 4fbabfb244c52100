# SPDX-License-Identifier: Apache-2.0
"""A small CNN for CIFAR-10: six convolutions with batch normalisation and three dense layers.

Written at opset 21 from the weights of a Keras file. Measured as top-1 accuracy on the official
test images; calibration takes the first training batch.
"""

from __future__ import annotations

import functools
import io
import json

import numpy as np
import numpy.typing as npt

from models.classification import top1_accuracy
from models.fetch import read_member
from models.keras_weights import batch_norm, conv_relu, dense_after_flatten, read_keras_layers
from models.network import Evaluation, Feeds, Network, Run
from models.onnx_graph import FLOAT, GraphBuilder
from models.packages import CIFAR10, CIFAR_CNN

SIDE, CLASSES = 32, 10


def _build() -> bytes:
    member = "cifar_10_model/trained_models/cnn_model.h5"
    layers = read_keras_layers(read_member(CIFAR_CNN, member))
    graph = GraphBuilder("cifar_cnn", opset=21)
    value = "images"
    for index in range(6):
        suffix = f"_{index}" if index else ""
        value = conv_relu(graph, value, f"conv2d{suffix}", layers[f"conv2d{suffix}"])
        name = f"batch_normalization{suffix}"
        value = batch_norm(graph, value, name, layers[name])
        if index in (1, 3):
            value = graph.node(
                "MaxPool", [value], f"pool{index}", kernel_shape=[2, 2], strides=[2, 2]
            )
    value = dense_after_flatten(graph, value, "dense", layers["dense"], (1, 1, 64))
    for index in (1, 2):
        value = graph.node("Relu", [value], f"dense_relu{index}")
        layer = layers[f"dense_{index}"]
        value = graph.linear(value, f"dense_{index}", layer["kernel"], layer["bias"])
    graph.node("Relu", [value], "scores")
    return graph.finish(
        {"images": (FLOAT, ("batch", 3, SIDE, SIDE))}, {"scores": (FLOAT, ("batch", CLASSES))}
    )


@functools.cache
def cifar10_images(part: str) -> npt.NDArray[np.float32]:
    """Images of "test_batch" or "data_batch_1" to 5, float32 (10000, 3, 32, 32), 0 to 255."""
    from PIL import Image

    with Image.open(io.BytesIO(read_member(CIFAR10, f"package/{part}.png"))) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    images = pixels.reshape(-1, SIDE, SIDE, 3).transpose(0, 3, 1, 2)
    return np.ascontiguousarray(images, np.float32)


@functools.cache
def cifar10_test_labels() -> npt.NDArray[np.int64]:
    """Class of each test image, int64 (10000,)."""
    return _labels("test_lables")


@functools.cache
def cifar10_train_labels() -> npt.NDArray[np.int64]:
    """Class of each training image, batch after batch, int64 (50000,)."""
    return _labels("train_lables")


def _labels(member: str) -> npt.NDArray[np.int64]:
    return np.asarray(json.loads(read_member(CIFAR10, f"package/{member}.json")), np.int64)


def _score(run: Run, limit: int | None) -> Evaluation:
    feeds: Feeds = {"images": cifar10_images("test_batch")[:limit]}
    return top1_accuracy(run, feeds, cifar10_test_labels()[:limit], batch=100)


def _inputs(count: int) -> Feeds:
    return {"images": cifar10_images("data_batch_1")[:count]}


NETWORK = Network(
    name="cifar_cnn",
    kind="cnn",
    description="CIFAR-10 images, 10 classes, 0.97 M parameters",
    packages=(CIFAR_CNN, CIFAR10),
    build=_build,
    score=_score,
    calibrate=_inputs,
    example=_inputs,
    baseline=80.14,
    unit="%",
)
