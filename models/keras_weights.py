# SPDX-License-Identifier: Apache-2.0
"""Reads the layers of a Keras HDF5 file and writes them as ONNX nodes in NCHW order."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt

from models.onnx_graph import GraphBuilder

Layer = dict[str, npt.NDArray[Any]]
KERAS_EPSILON = 0.001


def read_keras_layers(content: bytes) -> dict[str, Layer]:
    """Weights of each layer that has any: {layer: {"kernel": array, ...}}, in Keras' own layout."""
    import h5py

    layers: dict[str, Layer] = {}
    with h5py.File(io.BytesIO(content), "r") as file:
        for name, group in file["model_weights"].items():
            inner = group.get(name)
            if inner is not None:
                layers[name] = {key.split(":")[0]: np.asarray(inner[key]) for key in inner}
    return layers


def conv_relu(graph: GraphBuilder, value: str, name: str, layer: Layer) -> str:
    """A "valid" convolution with stride 1, then Relu; the kernel goes from HWIO to OIHW."""
    kernel = layer["kernel"].transpose(3, 2, 0, 1)
    return graph.node("Relu", [graph.conv(value, name, kernel, layer["bias"])], f"{name}.relu")


def batch_norm(graph: GraphBuilder, value: str, name: str, layer: Layer) -> str:
    """Batch normalisation over the channels with the moving statistics."""
    statistics = {
        "gamma": layer["gamma"],
        "beta": layer["beta"],
        "mean": layer["moving_mean"],
        "variance": layer["moving_variance"],
    }
    return graph.batch_norm(value, name, statistics, KERAS_EPSILON)


def dense_after_flatten(
    graph: GraphBuilder, value: str, name: str, layer: Layer, shape: tuple[int, int, int]
) -> str:
    """Flatten and dense layer behind a value of (height, width, channels) = `shape`.

    Keras flattens height first and channels last, ONNX channels first, so the rows of the kernel
    are put into the other order.
    """
    units = layer["kernel"].shape[1]
    kernel = layer["kernel"].reshape(*shape, units).transpose(2, 0, 1, 3).reshape(-1, units)
    flat = graph.node("Flatten", [value], f"{name}.flat", axis=1)
    return graph.linear(flat, name, kernel, layer["bias"])
