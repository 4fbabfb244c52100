# SPDX-License-Identifier: Apache-2.0
"""How a model is trained: optimizer, learning rate as a function of the step, length, device."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from toolkit.errors import InputError


class OptimizerSettings(BaseModel):
    """The optimizer. ``rate_factors``: glob pattern of parameter names -> factor on the learning
    rate, the first that matches counts; weight decay leaves out what ``no_decay`` matches."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Literal["sgd", "adam", "adamw"] = "sgd"
    rate: float = Field(default=0.05, gt=0, allow_inf_nan=False)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    nesterov: bool = False
    betas: tuple[float, float] = (0.9, 0.999)
    weight_decay: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    rate_factors: dict[str, float] = {}
    no_decay: tuple[str, ...] = ()


class ScheduleSettings(BaseModel):
    """The learning rate as a share of the optimizer's: ``warmup`` epochs rising linearly, then
    ``constant``, ``cosine`` down to ``last``, ``exponential`` down to ``last``, or ``step``: times
    ``factor`` at each of ``milestones`` (epochs)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Literal["constant", "cosine", "exponential", "step"] = "constant"
    warmup: float = Field(default=0.0, ge=0)
    last: float = Field(default=0.01, gt=0, le=1)
    factor: float = Field(default=0.1, gt=0)
    milestones: tuple[float, ...] = ()

    def share(self, epoch: float, epochs: float) -> float:
        """The factor on the rate at a point of time, both in epochs."""
        if epoch < self.warmup:
            return max(epoch, 1e-3 * self.warmup) / self.warmup
        done = min(max((epoch - self.warmup) / max(epochs - self.warmup, 1e-9), 0.0), 1.0)
        if self.name == "cosine":
            return self.last + (1 - self.last) * 0.5 * (1 + math.cos(math.pi * done))
        if self.name == "exponential":
            return float(self.last**done)
        if self.name == "step":
            return float(self.factor ** sum(epoch >= m for m in self.milestones))
        return 1.0


class TrainSettings(BaseModel):
    """One run of training.

    ``divergence``: the loss of the data may become so many times its first value, or 10 nats where
    that is more. ``check_every``: steps between looks at the loss, which on a GPU wait for it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: int = Field(default=10, ge=1)
    optimizer: OptimizerSettings = OptimizerSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    clip_norm: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    seed: int = Field(default=0, ge=0, lt=2**32)
    device: str = "cpu"
    precision: Literal["float32", "bf16"] = "float32"
    evaluate_every: int = Field(default=1, ge=1)
    checkpoint_every: int | None = Field(default=None, ge=1)
    divergence: float = Field(default=100.0, gt=1)
    check_every: int | None = Field(default=None, ge=1)
    select: Literal["best", "last"] = "best"

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> TrainSettings:
        """Settings from options by name. Raises InputError naming the option that is wrong."""
        try:
            return cls.model_validate(dict(options))
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            if first["type"] == "extra_forbidden":
                known = ", ".join(cls.model_fields)
                raise InputError(f"{where}: unknown option, expected one of {known}") from error
            raise InputError(f"{where}: {first['msg']}") from error

    def torch_device(self, local_rank: int = 0) -> torch.device:
        """The device. Raises InputError where it is unknown or absent."""
        try:
            device = torch.device(self.device)
        except RuntimeError as error:
            raise InputError(f"device: expected cpu or cuda, found {self.device!r}") from error
        if device.type == "cuda" and not torch.cuda.is_available():
            raise InputError("device: cuda is asked for, but torch sees no GPU")
        if device.type == "cuda" and device.index is None:
            return torch.device("cuda", local_rank)
        return device


def parameter_groups(
    named: Mapping[str, torch.nn.Parameter], settings: OptimizerSettings
) -> list[dict[str, Any]]:
    """Groups for an optimizer, each with its ``factor`` on the rate. Raises InputError for a
    pattern that matches nothing."""
    for pattern in (*settings.rate_factors, *settings.no_decay):
        if not any(fnmatchcase(name, pattern) for name in named):
            raise InputError(f"optimizer: {pattern!r} matches no parameter")
    groups: dict[tuple[float, float], list[torch.nn.Parameter]] = {}
    for name, parameter in named.items():
        factor = next(
            (f for p, f in settings.rate_factors.items() if fnmatchcase(name, p)),
            1.0,
        )
        plain = any(fnmatchcase(name, pattern) for pattern in settings.no_decay)
        groups.setdefault((factor, 0.0 if plain else settings.weight_decay), []).append(parameter)
    return [
        {"params": members, "factor": factor, "weight_decay": decay, "lr": settings.rate * factor}
        for (factor, decay), members in groups.items()
    ]


def build_optimizer(
    named: Mapping[str, torch.nn.Parameter], settings: OptimizerSettings
) -> torch.optim.Optimizer:
    """The optimizer of the named parameters."""
    groups = parameter_groups(named, settings)
    if settings.name == "sgd":
        return torch.optim.SGD(
            groups, settings.rate, momentum=settings.momentum, nesterov=settings.nesterov
        )
    kind = torch.optim.Adam if settings.name == "adam" else torch.optim.AdamW
    return kind(groups, settings.rate, betas=settings.betas)
