# SPDX-License-Identifier: Apache-2.0
"""Mean cosine of MiniLM's sentence embeddings to the original's, as a metric of `--max-drop`.

Sentences are others than those that `benchmarks.minilm` measures on and that calibrate.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from models.fidelity import row_cosines
from models.minilm import embed
from models.network import session_run
from models.sentences import english_sentences
from models.zoo import network

SKIPPED, COUNT = 384, 128


@functools.cache
def _original() -> npt.NDArray[np.float64]:
    return embed(session_run(network("minilm").onnx_path(), 2), _sentences())


def _sentences() -> tuple[str, ...]:
    return english_sentences(COUNT, SKIPPED)


def cosine(run: Callable[[Mapping[str, Any]], Mapping[str, Any]]) -> float:
    """Mean cosine over 128 sentences."""
    found = embed(lambda feeds: list(run(feeds).values()), _sentences())
    return float(row_cosines(found, _original()).mean())
