# SPDX-License-Identifier: Apache-2.0
"""Stories that stories15M makes up itself: inputs to calibrate with where no others are at hand."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from models.network import session_run
from models.stories15m import NETWORK
from models.story_tokens import START

BATCH = 8


def made_up_stories(count: int, length: int, seed: int = 0) -> npt.NDArray[np.int64]:
    """`count` rows of `length` tokens, int64, each begun at the start token and drawn token by
    token from what the network predicts."""
    run, random = session_run(NETWORK.onnx_path(), 2), np.random.default_rng(seed)
    batches = []
    for start in range(0, count, BATCH):
        tokens = np.full((min(BATCH, count - start), 1), START, np.int64)
        while tokens.shape[1] < length:
            scores = run({"input_ids": tokens})[0][:, -1].astype(np.float64)
            odds = np.exp(scores - scores.max(1, keepdims=True)).cumsum(1)
            drawn = (odds < random.uniform(size=(len(odds), 1)) * odds[:, -1:]).sum(1)
            tokens = np.concatenate([tokens, drawn[:, None]], 1)
        batches.append(tokens)
    return np.concatenate(batches)
