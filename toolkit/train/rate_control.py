# SPDX-License-Identifier: Apache-2.0
"""Finds the multiplier of an entropy penalty while training runs: dual ascent on the bytes."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from toolkit.errors import InputError
from toolkit.train.callback import Callback
from toolkit.train.entropy_penalty import EntropyPenalty
from toolkit.train.multiplier_search import Point, Target

if TYPE_CHECKING:
    from toolkit.train.trainer import Trainer


class RateControl(Callback):
    """Steers ``penalty.multiplier`` to a target, so that one run is enough.

    For a size: the constraint bytes <= size has the multiplier as its dual variable; each
    ``interval`` steps log(multiplier) rises by ``gain`` * log(bytes / size) + ``damping`` * the
    change of log(bytes), by a factor of 4 at most. Without damping it would overshoot, as weights
    take many steps to follow the multiplier, and those that reach zero seldom come back. For a
    drop: after each evaluation it rises by the factor 1 + ``gain`` where the metric is good enough,
    else it falls by it. Bytes are those that the codec writes. Only a state that meets the target
    is selected: the most accurate for a size, the smallest for a drop.

    Args:
        penalty: Whose multiplier is steered; its value is the start, above 0. Put it before this
            one among the callbacks.
        target: What to reach.
        interval: Steps between two corrections for a size; None for five an epoch.
        gain: Above 0.
        damping: 0 or more.

    Raises:
        InputError: options out of range.
    """

    def __init__(
        self,
        penalty: EntropyPenalty,
        target: Target,
        *,
        interval: int | None = None,
        gain: float = 0.6,
        damping: float = 10.0,
    ) -> None:
        if penalty.multiplier <= 0:
            raise InputError("rate control: the multiplier must begin above 0")
        if not (0 < gain < math.inf and 0 <= damping < math.inf):
            raise InputError(f"rate control: found gain {gain} and damping {damping}")
        if interval is not None and interval < 1:
            raise InputError(f"rate control: interval: expected 1 or more, found {interval}")
        self.penalty, self.target, self.gain, self.interval = penalty, target, gain, interval
        self.damping, self.num_bytes = damping, math.inf
        self._metric = math.nan

    def after_step(self, trainer: Trainer) -> None:
        """Corrects the multiplier by the bytes."""
        interval = self.interval or max(trainer.steps_per_epoch // 5, 1)
        if self.target.size is None or (trainer.step + 1) % interval:
            return
        before, self.num_bytes = self.num_bytes, self._measured(trainer)
        change = self.gain * math.log(max(self.num_bytes, 1.0) / self.target.size)
        if math.isfinite(before):
            change += self.damping * math.log(max(self.num_bytes, 1.0) / max(before, 1.0))
        self.penalty.multiplier *= math.exp(min(max(change, -math.log(4)), math.log(4)))

    def after_evaluation(self, trainer: Trainer, record: dict[str, float]) -> None:
        """Measures what may be selected, and corrects the multiplier by the metric."""
        self.num_bytes, self._metric = self._measured(trainer), record["validation_metric"]
        record["bytes"] = self.num_bytes
        if self.target.max_drop is not None:
            drop = self.target.drop(self._metric)
            good = drop <= self.target.max_drop
            self.penalty.multiplier *= (1 + self.gain) ** (1 if good else -1)

    def is_selectable(self, trainer: Trainer) -> bool:
        """Where the target is met."""
        return self.target.is_met(Point(self.penalty.multiplier, self.num_bytes, self._metric))

    def rank(self, trainer: Trainer, metric: float) -> float | None:
        """For a drop the smallest is the best."""
        return -self.num_bytes if self.target.max_drop is not None else None

    def state_dict(self) -> dict[str, Any]:
        """What was measured last."""
        return {"num_bytes": self.num_bytes, "metric": self._metric}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes what `state_dict` gave."""
        self.num_bytes, self._metric = state["num_bytes"], state["metric"]

    @staticmethod
    def _measured(trainer: Trainer) -> float:
        """Bytes in evaluation mode."""
        was_training = trainer.model.training
        trainer.model.eval()
        try:
            return float(trainer.num_bytes())
        finally:
            trainer.model.train(was_training)
