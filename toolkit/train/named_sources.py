# SPDX-License-Identifier: Apache-2.0
"""Models and data that a training recipe names: ``module:function`` with options, or a short name
of this repository's folder ``models``, which is not installed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import torch
from pydantic import BaseModel, ConfigDict, model_validator
from torch import nn

from toolkit.calibration_callable import load_callable
from toolkit.errors import InputError, one_line
from toolkit.train.checkpoint import read_checkpoint, read_tensors
from toolkit.train.task import Task, classification
from toolkit.train.tensor_loader import Batch, TensorLoader

MODELS = {
    name: f"models.architectures.{module}:{name}"
    for module, names in {
        "lenet": ("lenet_300_100", "lenet_5_caffe"),
        "nin": ("nin",),
        "vgg": ("vgg_16",),
        "resnet": ("resnet_18", "resnet_50"),
        "alexnet": ("alexnet",),
        "mobilenet": ("mobilenet",),
    }.items()
    for name in names
}
DATA = {"mnist": "models.data.mnist:mnist", "cifar10": "models.data.cifar10:cifar10"}


class Source(BaseModel):
    """What is called, with which options; ``weights`` are loaded into a model: a checkpoint of
    toolkit train, or a state dict in safetensors. In a recipe a text alone is ``source``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    source: str
    options: dict[str, Any] = {}
    weights: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _text(cls, given: Any) -> Any:
        return {"source": given} if isinstance(given, str) else given

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: Any, handler: Any) -> dict[str, Any]:
        found: dict[str, Any] = {"anyOf": [{"type": "string"}, handler(schema)]}
        return found

    @model_validator(mode="after")
    def _has_a_form(self) -> Self:
        if ":" not in self.source and self.source not in {**MODELS, **DATA}:
            known = ", ".join(sorted({**MODELS, **DATA}))
            raise ValueError(f"expected module:function or one of {known}, not {self.source!r}")
        return self

    def called(self, what: str) -> Any:
        """What the function gives. Raises InputError, beginning with ``what``, if it fails."""
        name = {**MODELS, **DATA}.get(self.source, self.source)
        function = load_callable(name, what)
        try:
            return function(**self.options)
        except InputError:
            raise
        except Exception as error:  # whatever the user's function does
            raise InputError(f"{what} {self.source}: failed ({one_line(error)})") from error

    def model(self, what: str = "model") -> nn.Module:
        """A model, with its weights. Raises InputError."""
        model = self.called(what)
        if not isinstance(model, nn.Module):
            raise InputError(f"{what} {self.source}: gives {type(model).__name__}, no torch module")
        if self.weights is not None:
            load_weights(model, Path(self.weights))
        return model

    def teacher(self) -> nn.Module | Callable[[Batch], torch.Tensor]:
        """A model, or what else gives logits for a batch. Raises InputError."""
        found = self.called("teacher")
        if isinstance(found, nn.Module) or not callable(found):
            return self.model("teacher")
        if self.weights is not None:
            raise InputError(f"teacher {self.source}: gives a function, which takes no weights")
        function: Callable[[Batch], torch.Tensor] = found
        return function

    def task(self, batch_size: int, seed: int) -> Task:
        """A task: what the function gives, or classification of its ``train``, ``validation`` and
        ``test``, each a tuple of tensors, or something with ``inputs`` and ``labels``. Raises
        InputError."""
        data = self.called("data")
        if isinstance(data, Task):
            return data
        parts = []
        for place, name in enumerate(("train", "validation", "test")):
            part = getattr(data, name, None)
            part = None if callable(part) else part
            if part is None and isinstance(data, dict):
                part = data.get(name)
            if part is None and isinstance(data, tuple) and len(data) == 3:
                part = data[place]
            if part is None and name != "test":
                raise InputError(f"data {self.source}: gives no {name} set")
            parts.append(None if part is None else self._loader(part, name, batch_size, seed))
        return classification(*parts)

    def _loader(self, part: Any, name: str, batch_size: int, seed: int) -> Any:
        if hasattr(part, "batches"):
            return part
        tensors = (part.inputs, part.labels) if hasattr(part, "inputs") else part
        if not isinstance(tensors, tuple | list) or not all(
            isinstance(tensor, torch.Tensor) for tensor in tensors
        ):
            raise InputError(f"data {self.source}: {name}: expected tensors of inputs and labels")
        size = batch_size if name == "train" else 500
        return TensorLoader(*tensors, batch_size=size, shuffle=name == "train", seed=seed)


def load_weights(model: nn.Module, path: Path) -> None:
    """Loads a checkpoint's selected model or a state dict in safetensors. Raises InputError."""
    if not path.exists():
        raise InputError(f"{path}: there is no such file of weights")
    tensors = read_tensors(path)
    if tensors is None:
        state = read_checkpoint(path)
        best = state.get("best")
        tensors = state["model"] if best is None else best["model"]
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise InputError(f"{path}: weights of another model ({one_line(error, 200)})") from error
