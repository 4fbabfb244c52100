# SPDX-License-Identifier: Apache-2.0
"""Inputs that a model is measured on: real ones where given, else made from its signature."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from toolkit.calibration import Feed, read_calibration, split_feeds
from toolkit.calibration_split import PIECE
from toolkit.errors import InputError, one_line
from toolkit.fixed_sizes import with_sizes
from toolkit.made_up_inputs import made_up_feeds
from toolkit.signature import InputSpec

if TYPE_CHECKING:
    import onnx_ir as ir

MACS_OF_ACTIVATION = 20
"""Multiply-accumulates in the time that one value of an activation takes; of thirty networks in
ONNX Runtime on one core."""
MAX_CALIBRATION_FEEDS = 64
"""To measure on."""
MAX_FITTED_FEEDS = 4096
"""To fit to."""


@dataclass
class ModelInputs:
    """Feeds for a model. `notes` says in words what was assumed; `generated` whether it was."""

    feeds: list[Feed]
    generated: bool
    notes: list[str] = field(default_factory=list)


def model_inputs(
    specs: Sequence[InputSpec],
    calibration: Path | None,
    bounds: Mapping[str, int],
    attempt: Callable[[Feed], object],
    max_feeds: int = MAX_CALIBRATION_FEEDS,
    work: Callable[[Feed], int] = lambda feed: 0,
    sizes: Mapping[str, Mapping[int, int]] | None = None,
) -> ModelInputs:
    """Feeds from `calibration`, at most `max_feeds`, or made from the signature where it is None.

    `bounds` are exclusive upper bounds of integer inputs (`index_bounds`). `attempt` runs the model
    once and raises where it cannot; it is called on the first samples, and for generated inputs
    again with other sizes of the dynamic dimensions until one runs. `work` tells the
    multiply-accumulates of one feed: the more, the fewer feeds are made. `sizes` of open dimensions
    that the model's layers fix (`fixed_sizes`) are tried first.

    Raises `InputError` where the calibration does not match or no generated feed runs.
    """
    if calibration is not None:
        feeds = read_calibration(calibration, specs, max_feeds)
        outputs = _first_outputs(calibration, feeds[0], specs, attempt)
        if _is_lost(outputs):
            raise InputError(f"{calibration}: the model's outputs on it are not finite")
        count = "1 feed" if len(feeds) == 1 else f"{len(feeds)} feeds"
        return ModelInputs(feeds, False, [f"measured on {count} from {calibration}"])
    signatures = [with_sizes(specs, sizes or {}), specs]
    feeds, note = made_up_feeds(signatures, bounds, attempt, work)
    return ModelInputs(feeds, True, [note])


def _first_outputs(
    calibration: Path, feed: Feed, specs: Sequence[InputSpec], attempt: Callable[[Feed], object]
) -> object:
    """Outputs of the first rows of a feed, or of all, where the model does not run on few."""
    failure: Exception | None = None
    for given in (next(split_feeds([feed], specs, PIECE)), feed):
        try:
            return attempt(given)
        except Exception as error:  # onnxruntime raises many kinds
            failure = failure or error
    raise InputError(
        f"{calibration}: the model does not run on it ({one_line(failure or ValueError())})"
    ) from failure


def work_of_feed(model: ir.Model, feed: Feed) -> int:
    """How long one run of `feed` takes, for `model_inputs`: multiply-accumulates of layers, and
    `MACS_OF_ACTIVATION` for each value computed; 0 where shapes cannot be inferred."""
    from passes.count_macs import count_work

    shapes = {name: array.shape for name, array in feed.items()}
    try:
        macs, values = count_work(model, shapes)
    except Exception:  # of the ONNX checker and of odd graphs, which the model itself runs on
        return 0
    return macs + MACS_OF_ACTIVATION * values


def _is_lost(outputs: object) -> bool:
    """Whether there are arrays of floats, in a list of runs or by name, and no finite value."""
    queue, arrays = [outputs], list[np.ndarray]()
    while queue:
        found = queue.pop()
        if isinstance(found, Mapping):
            queue += found.values()
        elif isinstance(found, list | tuple):
            queue += found
        elif isinstance(found, np.ndarray):
            arrays.append(found)
    floats = [array for array in arrays if array.dtype.kind == "f" and array.size]
    return len(floats) == len(arrays) > 0 and not any(np.isfinite(a).any() for a in floats)
