# SPDX-License-Identifier: Apache-2.0
"""The loop that every training method runs in.

Methods are callbacks. A run is deterministic in its seed, and one that was interrupted goes on from
its last checkpoint bit for bit as if it had not been.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from passes.schemes import Parameters
from toolkit.errors import InputError, TrainingError
from toolkit.train.callback import Callback
from toolkit.train.checkpoint import BEST, LAST
from toolkit.train.computation import Computation
from toolkit.train.distributed import World, joined, sums
from toolkit.train.logs import RunLog
from toolkit.train.progress import Progress
from toolkit.train.random_state import seed_everything
from toolkit.train.run_state import load_run, save_run
from toolkit.train.state_tree import copied, on_device
from toolkit.train.task import Evaluation, Task, as_data_errors
from toolkit.train.tensor_loader import move
from toolkit.train.train_settings import TrainSettings, build_optimizer

_LEAST_DIVERGED = 10.0  # nats; a first loss near zero is no measure


@dataclass(frozen=True)
class Best:
    """The state that is selected: when it was, its metric, what it was ranked by (larger is
    better), tensors by name (on the CPU), and the states of callbacks by name."""

    epoch: int
    step: int
    loss: float
    metric: float
    rank: float
    model: dict[str, torch.Tensor]
    callbacks: dict[str, Any]


@dataclass(frozen=True)
class Result:
    """What a run gave: a record for each epoch; the selected state, None where callbacks let none
    be selected and the last weights stay."""

    history: list[dict[str, float]]
    best: Best | None

    @property
    def metric(self) -> float:
        """The selected state's metric on validation data; NaN where none was selected."""
        return math.nan if self.best is None else self.best.metric


class Trainer:
    """Trains ``model`` on ``task``, with methods as ``callbacks``.

    Args:
        model: Is changed in place.
        task: Data, loss and metric.
        callbacks: Methods, acting in this order; their names differ.
        settings: Of the run; or its options by name as keywords.
        folder: Where checkpoints and the log are written; None writes nothing.
        progress: Show progress on stderr.
        tensorboard: Also write TensorBoard's files into ``folder``.

    Raises:
        InputError: settings, data or a callback cannot be used.
    """

    def __init__(
        self,
        model: nn.Module,
        task: Task,
        callbacks: Sequence[Callback] = (),
        settings: TrainSettings | None = None,
        *,
        folder: str | Path | None = None,
        progress: bool = True,
        tensorboard: bool = False,
        **options: Any,
    ) -> None:
        if settings is not None and options:
            raise InputError(f"{next(iter(options))}: give settings or options, not both")
        self.model, self.callbacks = model, tuple(callbacks)
        self.settings = settings or TrainSettings.of(options)
        names = [callback.name for callback in self.callbacks]
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise InputError(f"callbacks: two are named {twice!r}; give one another name")
        self.folder = None if folder is None else Path(folder)
        if tensorboard and self.folder is None:
            raise InputError("tensorboard: give a folder")
        self.device, self.world = self.settings.torch_device(), World()
        self._given_task, self.task = task, task.prepared(self.settings.seed, self.device)
        self._show, self._tensorboard = progress, tensorboard
        self.step = self.epoch = self.batch = 0
        self.history: list[dict[str, float]] = []
        self.best: Best | None = None
        self.sums: dict[str, torch.Tensor] = {}
        self.first_loss: float | None = None
        self._is_untried = True  # no batch has gone through model and loss yet
        self.optimizer: torch.optim.Optimizer
        self.named: dict[str, nn.Parameter] = {}
        self._tested: Evaluation | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Steps of the optimizer in an epoch."""
        return len(self.task.train)

    @property
    def num_samples(self) -> int:
        """Samples to train with."""
        return int(self.task.train.num_samples)

    def fit(self, resume: bool = False) -> Result:
        """Trains to the end and leaves the selected state in the model.

        Args:
            resume: Go on from the last checkpoint in ``folder``, if there is one.

        Raises:
            TrainingError: the loss is NaN or infinite, or grows without end; the last good
                checkpoint stays.
            InputError: the checkpoint is of another model or run, or damaged; or there is one and
                ``resume`` is not given.
            OutputError: a checkpoint cannot be written.
        """
        with joined(self.settings.device) as self.world:
            self.device = self.settings.torch_device(self.world.local_rank)
            self.task = self._given_task.prepared(self.settings.seed, self.device)
            self._begin(resume)
            log = RunLog(self.folder if self.world.is_first else None, self._tensorboard)
            show = Progress(self._show and self.world.is_first, self.settings.epochs, self.epoch)
            try:
                for epoch in range(self.epoch, self.settings.epochs):
                    self._run_epoch(epoch, show)
                    log.write(self.history)
                    show.epoch(self.history[-1])
            finally:
                show.close()
                log.close()
            self._finish()
        self.world = World()  # what follows, each process does alone
        return Result(self.history, self.best)

    def test(self) -> Evaluation:
        """The result on the test set. It is looked at once; asked again, the same is told again.

        Raises InputError where there is no test set.
        """
        if self.task.test is None:
            raise InputError("data: there is no test set")
        if self._tested is None:
            self._tested = self._evaluated(self.task.test)
        return self._tested

    def validate(self) -> Evaluation:
        """Mean loss and metric on the validation data, of the compressed weights."""
        with self.evaluating():
            return self._evaluated(self.task.validation)

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """While the model is as callbacks want it evaluated."""
        with ExitStack() as stack:
            for callback in self.callbacks:
                stack.enter_context(callback.evaluating(self))
            yield

    def parameters(self) -> dict[str, Parameters]:
        """Parameter name -> the fitted scheme that decodes to it, of all callbacks and of all
        compressed forms in the model."""
        from toolkit.nn import fitted_parameters

        found = dict(fitted_parameters(self.model))
        for callback in self.callbacks:
            found.update(callback.parameters())
        return found

    def num_bytes(self) -> int:
        """Bytes from which all parameters are decoded, compressed ones as the codec writes them."""
        from toolkit.nn import compressed_bytes

        return compressed_bytes(self.model, self.parameters())

    def attach_parameters(self) -> None:
        """Gives the weights the forms that callbacks have found for them, so that `toolkit.export`
        writes those. For the end: the model can then be trained no more."""
        from toolkit.nn import attach_given

        for callback in self.callbacks:
            attach_given(self.model, callback.parameters())

    def reset_optimizer(self) -> None:
        """Forgets momenta and the like: for a callback that begins a new stage."""
        self.optimizer.state.clear()

    def _evaluated(self, data: Any) -> Evaluation:
        with as_data_errors("data: in evaluation"):
            return self.task.evaluate(
                self.model, data, self.device, self.world, self.settings.precision
            )

    def _begin(self, resume: bool) -> None:
        seed_everything(self.settings.seed, self.world.rank)
        self.model.to(self.device)
        self.model.train()
        for callback in self.callbacks:
            callback.on_start(self)
            if callback.module is not None:
                callback.module.to(self.device)
        self.named = dict(_trained(self.model, self.callbacks))
        if not self.named:
            raise InputError("model: it has no parameters to train")
        self.optimizer = build_optimizer(self.named, self.settings.optimizer)
        self.computation = Computation(self)
        if self.folder is None:
            return
        last = self.folder / LAST
        if last.exists() and not resume:
            raise InputError(
                f"{self.folder}: holds a checkpoint of an earlier run; resume it, or give another "
                "folder"
            )
        if last.exists():
            load_run(self, last)
            for callback in self.callbacks:
                callback.on_resume(self)
        elif self.world.is_first:
            self.folder.mkdir(parents=True, exist_ok=True)

    def _run_epoch(self, epoch: int, show: Progress) -> None:
        self.epoch = epoch
        check = self.settings.check_every or (1 if self.device.type == "cpu" else 20)
        every = self.settings.checkpoint_every
        for batch, share in self.task.train.batches(epoch, self.batch, self.world):
            terms = self._run_step(move(batch, self.device), share)
            if self.step % check == 0 or self.first_loss is None:
                self._check(terms)
            self.step, self.batch = self.step + 1, self.batch + 1
            show.step(self.batch, self.steps_per_epoch)
            if every and self.step % every == 0 and self.batch < self.steps_per_epoch:
                self._check(terms)
                self._save()
        self._end_epoch()
        self._save()

    def _run_step(self, batch: Any, share: float) -> dict[str, torch.Tensor]:
        settings, rate = self.settings, self._rate()
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["factor"]
        for callback in self.callbacks:
            callback.before_forward(self)
        with as_data_errors("data: the first batch") if self._is_untried else nullcontext():
            terms = self.computation.backward(batch, share)
        self._is_untried = False
        for callback in self.callbacks:
            callback.after_backward(self)
        if settings.clip_norm is not None:
            nn.utils.clip_grad_norm_(list(self.named.values()), settings.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        for callback in self.callbacks:
            callback.after_step(self)
        for name, value in terms.items():
            old = self.sums.get(name)
            self.sums[name] = value if old is None else old + value
        return terms

    def _rate(self) -> float:
        settings = self.settings
        now = self.step / self.steps_per_epoch
        rate = settings.optimizer.rate * settings.schedule.share(now, settings.epochs)
        for callback in self.callbacks:
            rate = callback.learning_rate(self, rate)
        return rate

    def _check(self, terms: dict[str, torch.Tensor]) -> None:
        """Raises TrainingError where the loss is not finite or has grown without measure."""
        task = float(terms["task"])
        total = sum(float(value) for value in terms.values())
        if self.first_loss is None and math.isfinite(task):
            self.first_loss = abs(task)
        if not math.isfinite(total):
            name = next((n for n, v in terms.items() if not math.isfinite(v)), "total")
            self._stop(f"the loss is {total} ({name})")
        most = max(self.settings.divergence * (self.first_loss or 0.0), _LEAST_DIVERGED)
        if abs(task) > most:
            self._stop(f"it diverges: the loss of the data is {task:.4g}, at most {most:.4g}")

    def _stop(self, what: str) -> None:
        kept = "no checkpoint was written"
        if self.folder is not None and (self.folder / LAST).exists():
            kept = f"the last good checkpoint is {self.folder / LAST}"
        raise TrainingError(
            f"training: at step {self.step} of epoch {self.epoch + 1} {what}; a smaller learning "
            f"rate may help; {kept}"
        )

    def _end_epoch(self) -> None:
        settings = self.settings
        names = list(self.sums)
        totals = sums([float(self.sums[name]) for name in names], self.device, self.world)
        number = self.steps_per_epoch * self.world.size
        means = {name: total / number for name, total in zip(names, totals, strict=True)}
        record: dict[str, float] = {"epoch": self.epoch + 1, "step": self.step}
        record["loss"] = sum(means.values())
        if len(means) > 1:
            record.update({f"loss.{name}": value for name, value in means.items()})
        record["rate"] = float(self.optimizer.param_groups[0]["lr"])
        for callback in self.callbacks:
            callback.on_epoch_end(self, record)
        self.epoch, self.batch, self.sums = self.epoch + 1, 0, {}
        if self.epoch % settings.evaluate_every == 0 or self.epoch == settings.epochs:
            self._evaluate(record)
        self.history.append(record)

    def _evaluate(self, record: dict[str, float]) -> None:
        with self.evaluating():
            found = self._evaluated(self.task.validation)
            record["validation_loss"], record["validation_metric"] = found.loss, found.metric
            if not math.isfinite(found.loss):
                self._stop(f"the validation loss is {found.loss}")
            for callback in self.callbacks:
                callback.after_evaluation(self, record)
            if not all(callback.is_selectable(self) for callback in self.callbacks):
                return
            rank = self._rank(found.metric)
            than = None if self.best is None or self.settings.select == "last" else self.best.rank
            if than is not None and not rank > than:
                return
            tensors = copied(self.model.state_dict())
            states = {c.name: copied(c.state_dict()) for c in self.callbacks}
            self.best = Best(self.epoch, self.step, found.loss, found.metric, rank, tensors, states)

    def _rank(self, metric: float) -> float:
        """What the selected state has most of: the metric, unless a callback says otherwise."""
        for callback in self.callbacks:
            rank = callback.rank(self, metric)
            if rank is not None:
                return rank
        return metric if self.task.higher_is_better else -metric

    def _save(self) -> None:
        if self.folder is not None:
            is_new = self.best is not None and self.best.step == self.step
            save_run(self, self.folder / LAST, self.folder / BEST if is_new else None)

    def _finish(self) -> None:
        if self.best is not None:
            self.model.load_state_dict(self.best.model)
            for callback in self.callbacks:
                state = copied(self.best.callbacks[callback.name])
                callback.load_state_dict(on_device(state, self.device))
        for callback in self.callbacks:
            callback.on_end(self)
        self.model.eval()


def _trained(model: nn.Module, callbacks: Iterable[Callback]) -> Iterator[tuple[str, nn.Parameter]]:
    """Parameters that are trained, by name; those of callbacks behind the callback's name."""
    yield from ((n, p) for n, p in model.named_parameters() if p.requires_grad)
    for callback in callbacks:
        if callback.module is not None:
            for name, parameter in callback.module.named_parameters():
                if parameter.requires_grad:
                    yield f"{callback.name}.{name}", parameter
