# SPDX-License-Identifier: Apache-2.0
"""Deep Compression (Han, Mao, Dally 2016): staged pruning with retraining, then trained codebooks.
Its third stage, coding, is what export does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from torch import nn

from passes.schemes import Codebook, CodebookParameters, Parameters, Prune, PruneParameters
from toolkit.train.callback import Callback
from toolkit.train.staged_pruning import StagedPruning
from toolkit.train.trained_codebooks import TrainedCodebooks
from toolkit.train.weight_arrays import array_of, parameter_of

if TYPE_CHECKING:
    from toolkit.train.trainer import Trainer


class DeepCompression(Callback):
    """Pruning in stages, then codebooks for what is left, both trained.

    Args:
        prune: As the rules of `StagedPruning`.
        prune_starts: Epochs at which its stages begin.
        codebooks: As the rules of `TrainedCodebooks`; none leaves the weights free.
        codebook_start: The epoch at which weights are tied, after the last stage of pruning.
        gradient, update_labels: As for `TrainedCodebooks`.
        joint: As for `StagedPruning`.
    """

    def __init__(
        self,
        prune: Mapping[str, Prune],
        prune_starts: Sequence[float] = (0.0,),
        codebooks: Mapping[str, Codebook] | None = None,
        codebook_start: float | None = None,
        *,
        gradient: Literal["sum", "mean"] = "mean",
        update_labels: bool = False,
        joint: bool = False,
    ) -> None:
        self.pruning = StagedPruning(prune, prune_starts, joint=joint)
        self.codebooks: TrainedCodebooks | None = None
        if codebooks:
            begin = prune_starts[-1] + 1 if codebook_start is None else codebook_start
            self.codebooks = TrainedCodebooks(
                codebooks, begin, gradient=gradient, update_labels=update_labels
            )
        self._model: nn.Module | None = None

    @property
    def _parts(self) -> list[Callback]:
        return [self.pruning, *([self.codebooks] if self.codebooks else [])]

    def on_start(self, trainer: Trainer) -> None:
        """Prepares both."""
        self._model = trainer.model
        for part in self._parts:
            part.on_start(trainer)

    def before_forward(self, trainer: Trainer) -> None:
        """Prunes or ties where it is time."""
        for part in self._parts:
            part.before_forward(trainer)

    def after_backward(self, trainer: Trainer) -> None:
        """Gradients of centroids."""
        for part in self._parts:
            part.after_backward(trainer)

    def after_step(self, trainer: Trainer) -> None:
        """Masks, and labels."""
        for part in self._parts:
            part.after_step(trainer)

    def on_epoch_end(self, trainer: Trainer, record: dict[str, float]) -> None:
        """Logs the sparsity."""
        for part in self._parts:
            part.on_epoch_end(trainer, record)

    def is_selectable(self, trainer: Trainer) -> bool:
        """When all stages have begun."""
        return all(part.is_selectable(trainer) for part in self._parts)

    def parameters(self) -> dict[str, Parameters]:
        """Name -> parameters of the scheme, for export; decoding them gives the trained weights."""
        from passes.schemes import Lossless

        model = self._model
        if model is None:
            return {}
        books: dict[str, CodebookParameters] = {}
        if self.codebooks is not None and self.codebooks.is_begun:
            books = self.codebooks.fitted(model)
        found: dict[str, Parameters] = dict(books)
        for name in self.pruning.masks:
            array = array_of(parameter_of(model, name))
            inner: Parameters = books.get(name) or Lossless().fit(array)
            found[name] = PruneParameters(inner, array != 0)
        return found

    def state_dict(self) -> dict[str, Any]:
        """Those of both."""
        return {part.name: part.state_dict() for part in self._parts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes what `state_dict` gave."""
        for part in self._parts:
            part.load_state_dict(state[part.name])
