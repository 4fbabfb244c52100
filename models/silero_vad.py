# SPDX-License-Identifier: Apache-2.0
"""Silero VAD: probability of speech for each 32 ms of sound (convolutions and one LSTM).

The package's own sequence form: one run takes all frames of a clip, (frames, 576), where a row is
64 samples of context and 512 new ones, and the state of the LSTM. Measured as the area under the
ROC curve (AUC) of the frame probabilities against the labels of ten meeting clips.
"""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt

from models.fetch import read_member
from models.meetings import CALIBRATION_CLIPS, EVALUATION_CLIPS, RATE, clips, is_speech
from models.network import Evaluation, Feeds, Network, Run
from models.packages import MEETINGS, SILERO_VAD

FRAME, CONTEXT, STATE = 512, 64, 128


def vad_frames(samples: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Rows of 64 samples of context and 512 samples, float32 (len(samples) // 512, 576)."""
    count = len(samples) // FRAME
    padded = np.concatenate([np.zeros(CONTEXT, np.float32), samples[: count * FRAME]])
    windows = np.lib.stride_tricks.sliding_window_view(padded, CONTEXT + FRAME)[::FRAME]
    return np.ascontiguousarray(windows)


def area_under_roc(scores: npt.NDArray[np.float64], truth: npt.NDArray[np.bool_]) -> float:
    """Probability that a true sample scores above a false one; ties count half. Both 1-D."""
    _, inverse, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    positive, negative = int(truth.sum()), int((~truth).sum())
    above = float(ranks[truth].sum()) - positive * (positive + 1) / 2
    return above / (positive * negative)


def _feeds(frames: npt.NDArray[np.float32]) -> Feeds:
    state = np.zeros((1, 1, STATE), np.float32)
    return {"input": frames, "h": state, "c": state.copy()}


def _score(run: Run, limit: int | None) -> Evaluation:
    scores, truths = [], []
    for name, samples in zip(EVALUATION_CLIPS, clips(EVALUATION_CLIPS), strict=True):
        frames = vad_frames(samples)
        scores.append(run(_feeds(frames))[0].reshape(-1))
        centres = (np.arange(len(frames)) + 0.5) * FRAME / RATE
        truths.append(is_speech(name, centres))
    probabilities = np.nan_to_num(np.concatenate(scores)[:limit].astype(np.float64), nan=0.0)
    truth = np.concatenate(truths)[:limit]
    value = area_under_roc(probabilities, truth)
    return Evaluation("area under the ROC curve", 100 * value, "%", len(truth))


@functools.cache
def _calibration_frames() -> npt.NDArray[np.float32]:
    return np.concatenate([vad_frames(samples) for samples in clips(CALIBRATION_CLIPS)])


def _inputs(count: int) -> Feeds:
    return _feeds(_calibration_frames()[:count])


NETWORK = Network(
    name="silero_vad",
    kind="recurrent",
    description="voice activity in speech at 16 kHz, convolutions and an LSTM, 0.31 M parameters",
    packages=(SILERO_VAD, MEETINGS),
    build=lambda: read_member(SILERO_VAD, "silero_vad/data/silero_vad_16k_sequence.onnx"),
    score=_score,
    calibrate=_inputs,
    example=_inputs,
    baseline=96.31,
    unit="%",
)
