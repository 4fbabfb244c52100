# SPDX-License-Identifier: Apache-2.0
"""The state of a run in a checkpoint: everything that the next step depends on."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from toolkit.errors import InputError
from toolkit.train.checkpoint import check_layout, layout_of, read_checkpoint, write_checkpoint
from toolkit.train.distributed import gathered, meet
from toolkit.train.random_state import random_state, set_random_state
from toolkit.train.state_tree import on_device

if TYPE_CHECKING:
    from toolkit.train.trainer import Trainer

_FREE = ("device", "check_every", "checkpoint_every")
"""Settings that may differ when a run is resumed."""


def save_run(trainer: Trainer, last: Path, best: Path | None) -> None:
    """Writes the run to ``last`` and, where ``best`` is given, the selected model to it. All
    processes take part, the first one writes."""
    states = gathered(random_state(), trainer.device, trainer.world)
    if trainer.world.is_first:
        if best is not None and trainer.best is not None:
            selected = trainer.best
            about = {"epoch": selected.epoch, "step": selected.step, "metric": selected.metric}
            write_checkpoint(best, {**about, "model": selected.model})
        write_checkpoint(last, _state(trainer, states))
    meet(trainer.world)


def _state(trainer: Trainer, random_states: list[Any]) -> dict[str, Any]:
    model = trainer.model.state_dict()
    best = trainer.best
    return {
        "layout": _layout(trainer),
        "settings": trainer.settings.model_dump(mode="json"),
        "processes": trainer.world.size,
        "place": [trainer.step, trainer.epoch, trainer.batch],
        "first_loss": trainer.first_loss,
        "history": trainer.history,
        "sums": trainer.sums,
        "random": random_states,
        "model": model,
        "optimizer": {
            name: dict(trainer.optimizer.state.get(parameter, {}))
            for name, parameter in trainer.named.items()
        },
        "callbacks": {
            callback.name: {
                "state": callback.state_dict(),
                "module": None if callback.module is None else callback.module.state_dict(),
            }
            for callback in trainer.callbacks
        },
        "best": None if best is None else {f.name: getattr(best, f.name) for f in fields(best)},
    }


def load_run(trainer: Trainer, path: Path) -> None:
    """Brings ``trainer``, prepared and with an optimizer, to the state in ``path``. Raises
    InputError where it is of another model or run."""
    from toolkit.train.trainer import Best

    state = read_checkpoint(path)
    check_layout(path, _layout(trainer), state["layout"])
    _check_settings(path, state, trainer)
    trainer.step, trainer.epoch, trainer.batch = state["place"]
    trainer.first_loss, trainer.history = state["first_loss"], state["history"]
    trainer.sums = {name: value.to(trainer.device) for name, value in state["sums"].items()}
    trainer.model.load_state_dict(state["model"])
    for name, parameter in trainer.named.items():
        values = state["optimizer"][name]
        if values:
            trainer.optimizer.state[parameter] = {
                key: _placed(key, value, parameter) for key, value in values.items()
            }
    for callback in trainer.callbacks:
        saved = state["callbacks"][callback.name]
        if callback.module is not None:
            callback.module.load_state_dict(saved["module"])
        callback.load_state_dict(on_device(saved["state"], trainer.device))
    trainer.best = None if state["best"] is None else Best(**state["best"])
    set_random_state(state["random"][trainer.world.rank])


def _placed(key: str, value: Any, parameter: torch.Tensor) -> Any:
    """A value of the optimizer's where it belongs; counters of steps stay on the CPU."""
    if not isinstance(value, torch.Tensor) or key == "step":
        return value
    return value.to(parameter.device)


def _layout(trainer: Trainer) -> dict[str, str]:
    layout = layout_of(trainer.model.state_dict())
    for callback in trainer.callbacks:
        layout[f"method {callback.name}"] = "present"
        if callback.module is not None:
            extra = layout_of(callback.module.state_dict())
            layout.update({f"{callback.name}.{name}": kind for name, kind in extra.items()})
    return layout


def _check_settings(path: Path, state: dict[str, Any], trainer: Trainer) -> None:
    if state["processes"] != trainer.world.size:
        raise InputError(
            f"{path}: a run of {state['processes']} processes, expected {trainer.world.size}"
        )
    now = trainer.settings.model_dump(mode="json")
    for name, value in now.items():
        if name not in _FREE and state["settings"].get(name) != value:
            raise InputError(
                f"{path}: {name} was {state['settings'].get(name)}, now it is {value}; resume with "
                "the same settings"
            )
