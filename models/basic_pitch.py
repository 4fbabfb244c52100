# SPDX-License-Identifier: Apache-2.0
"""basic-pitch: notes in two seconds of sound, by a constant-Q transform and small convolutions.

The quality is fidelity on windows of the meeting clips: for each window the lowest cosine among
the three outputs (onsets, notes, contours) to those of the float file.
"""

from __future__ import annotations

import functools

import numpy as np
import numpy.typing as npt

from models.fetch import read_member
from models.fidelity import stacked_outputs, worst_output
from models.meetings import CALIBRATION_CLIPS, EVALUATION_CLIPS, clips, resample
from models.network import Evaluation, Feeds, Network, Run, session_run
from models.packages import BASIC_PITCH, MEETINGS

RATE, WINDOW, BATCH, EVALUATED = 22_050, 43_844, 4, 30
INPUT = "serving_default_input_2:0"


@functools.cache
def sound_windows(names: tuple[str, ...], count: int) -> npt.NDArray[np.float32]:
    """`count` windows at 22,050 Hz, evenly spread over the clips: float32 (count, 43844, 1)."""
    rows = []
    for samples in clips(names):
        sound = resample(samples, RATE)
        rows.append(sound[: len(sound) // WINDOW * WINDOW].reshape(-1, WINDOW, 1))
    pool = np.concatenate(rows)
    chosen = np.linspace(0, len(pool) - 1, min(count, len(pool))).round().astype(int)
    return np.asarray(pool[chosen])


def _evaluated(count: int) -> Feeds:
    return {INPUT: sound_windows(EVALUATION_CLIPS, EVALUATED)[:count]}


@functools.cache
def _original(count: int) -> list[npt.NDArray[np.float64]]:
    return stacked_outputs(session_run(NETWORK.onnx_path()), _evaluated(count), BATCH)


def _score(run: Run, limit: int | None) -> Evaluation:
    count = min(limit or EVALUATED, EVALUATED)
    cosines = worst_output(stacked_outputs(run, _evaluated(count), BATCH), _original(count))
    details = {"min_cosine": float(cosines.min())}
    return Evaluation("cosine to the original", float(cosines.mean()), "cosine", count, details)


def _inputs(count: int) -> Feeds:
    return {INPUT: sound_windows(CALIBRATION_CLIPS, count)}


NETWORK = Network(
    name="basic_pitch",
    kind="cnn",
    description="notes in 2 s of sound, 3 outputs, 0.036 M parameters",
    packages=(BASIC_PITCH, MEETINGS),
    build=lambda: read_member(BASIC_PITCH, "basic_pitch/saved_models/icassp_2022/nmp.onnx"),
    score=_score,
    calibrate=_inputs,
    example=_inputs,
    baseline=1.0,
    unit="cosine",
)
