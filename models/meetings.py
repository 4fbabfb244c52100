# SPDX-License-Identifier: Apache-2.0
"""Meeting speech with hand-made segment labels: clips of 30 s, mono, 16 kHz."""

from __future__ import annotations

import functools
import struct

import numpy as np
import numpy.typing as npt

from models.fetch import read_member, read_members
from models.packages import MEETINGS

RATE = 16_000
FOLDER = "pyannote_audio-4.0.7/tests/data"
PARTS = {"trn": "train", "dev": "development", "tst": "test"}
CALIBRATION_CLIPS = ("trn01", "trn02", "trn03")
EVALUATION_CLIPS = (
    *("dev00", "dev01", "trn04", "trn05", "trn06"),
    *("trn07", "trn08", "trn09", "tst00", "tst01"),
)


@functools.cache
def clips(names: tuple[str, ...]) -> tuple[npt.NDArray[np.float32], ...]:
    """Samples of the clips, float32 (480000,) each, within -1 to 1, at 16 kHz.

    Raises `DataUnavailable` without the archive, `ValueError` for a file of another kind.
    """
    files = read_members(MEETINGS, tuple(f"{FOLDER}/{name}.wav" for name in names))
    return tuple(_float_samples(files[f"{FOLDER}/{name}.wav"]) for name in names)


@functools.cache
def speech_segments(name: str) -> tuple[tuple[float, float], ...]:
    """Start and end, in seconds, of each labelled segment of speech in a clip."""
    table = read_member(MEETINGS, f"{FOLDER}/debug.{PARTS[name[:3]]}.rttm").decode("utf-8")
    rows = [line.split() for line in table.splitlines()]
    return tuple((float(row[3]), float(row[3]) + float(row[4])) for row in rows if row[1] == name)


def is_speech(name: str, times: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Whether someone speaks in the clip at each of `times`, in seconds."""
    spoken = np.zeros(times.shape, np.bool_)
    for start, end in speech_segments(name):
        spoken |= (times >= start) & (times < end)
    return spoken


def resample(samples: npt.NDArray[np.float32], rate: int) -> npt.NDArray[np.float32]:
    """The clip at another `rate` in Hz, by zero-padding or cutting its spectrum."""
    count = len(samples) * rate // RATE
    spectrum = np.fft.rfft(samples.astype(np.float64))
    resized = np.zeros(count // 2 + 1, np.complex128)
    kept = min(len(spectrum), len(resized))
    resized[:kept] = spectrum[:kept]
    return (np.fft.irfft(resized, count) * count / len(samples)).astype(np.float32)


def _float_samples(content: bytes) -> npt.NDArray[np.float32]:
    """Samples of a RIFF file of 32-bit IEEE floats, mono, 16 kHz."""
    position, layout = 12, None
    while position + 8 <= len(content):
        kind, size = struct.unpack_from("<4sI", content, position)
        body = content[position + 8 : position + 8 + size]
        if kind == b"fmt ":
            layout = struct.unpack_from("<HHI", body)
        elif kind == b"data":
            if layout != (3, 1, RATE):
                raise ValueError(
                    f"WAV has format, channels, rate {layout}; expected (3, 1, {RATE})"
                )
            return np.frombuffer(body, "<f4").astype(np.float32)
        position += 8 + size + size % 2
    raise ValueError("the WAV file has no data chunk")
