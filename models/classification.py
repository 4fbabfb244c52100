# SPDX-License-Identifier: Apache-2.0
"""Top-1 accuracy of a classifier."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from models.fidelity import stacked_outputs
from models.network import Evaluation, Feeds, Run


def top1_accuracy(run: Run, feeds: Feeds, labels: npt.NDArray[np.int64], batch: int) -> Evaluation:
    """Share, in percent, of rows whose largest score in the first output is at their label.

    `labels` is (rows,); rows are run `batch` at a time. Raises `ValueError` when the output is
    not (rows, classes). A row with a score that is not finite counts as wrong.
    """
    scores = stacked_outputs(run, feeds, batch)[0]
    if scores.ndim != 2 or len(scores) != len(labels):
        raise ValueError(f"scores have shape {scores.shape}, expected ({len(labels)}, classes)")
    right = (scores.argmax(1) == labels) & np.isfinite(scores).all(1)
    return Evaluation("top-1 accuracy", float(100 * right.mean()), "%", len(labels))
