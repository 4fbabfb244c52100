# SPDX-License-Identifier: Apache-2.0
"""Methods as a training recipe writes them: options that are checked, and the callbacks they are.

Rules say which parameters are meant as rules of `toolkit compress` do, by their names in the state
dict; parameters that no rule names are left alone.
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import nn

from passes.errors import SchemeError
from passes.schemes import Codebook, Prune, Scheme
from passes.settings import Rule
from toolkit.errors import InputError
from toolkit.train.batch_norm_statistics import BatchNormStatistics
from toolkit.train.callback import Callback
from toolkit.train.deep_compression import DeepCompression
from toolkit.train.distillation import Distillation
from toolkit.train.entropy_penalty import EntropyPenalty
from toolkit.train.latent_pruning import LatentPruning
from toolkit.train.learning_compression import LC
from toolkit.train.named_sources import Source
from toolkit.train.parameter_rules import compressions_of, settings_of
from toolkit.train.quantized_distillation import (
    DifferentiableQuantization,
    QuantizedDistillation,
)

Side = Literal["first", "last"]


class _Options(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class EntropyPenaltyOptions(_Options):
    """`EntropyPenalty`, of the parameters that ``compress`` has given a form (stage ``latent``)."""

    multiplier: float = Field(ge=0, allow_inf_nan=False)
    warmup: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    averages: bool = True

    def built(self, model: nn.Module) -> Callback:
        """The callback."""
        return EntropyPenalty(self.multiplier, warmup=self.warmup, averages=self.averages)


class LatentPruningOptions(_Options):
    """`LatentPruning`, at the price of the ``entropy_penalty`` before it."""

    end: float = Field(gt=0, allow_inf_nan=False)
    start: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    every: int = Field(default=20, ge=1)
    decay: float = Field(default=0.99, ge=0, lt=1)

    def built(self, model: nn.Module) -> Callback:
        """The callback, which finds its penalty among those of the trainer."""
        return LatentPruning(**self.model_dump())


class LCOptions(_Options):
    """`LC`; a rule's ``joint`` names stages that its parameters share."""

    rules: tuple[Rule, ...] = Field(min_length=1)
    mu: float = Field(default=9e-5, gt=0, allow_inf_nan=False)
    growth: float = Field(default=1.1, ge=1, allow_inf_nan=False)
    steps: int = Field(default=40, ge=1)
    multipliers: bool = True
    select_from: float = Field(default=0.75, ge=0, le=1)

    def built(self, model: nn.Module) -> Callback:
        """The callback."""
        options = self.model_dump(exclude={"rules"})
        return LC(compressions_of(model, self.rules, "lc"), **options)


class DeepCompressionOptions(_Options):
    """`DeepCompression`; each rule's stages are ``prune``, ``codebook``, or both, in this order."""

    rules: tuple[Rule, ...] = Field(min_length=1)
    prune_starts: tuple[float, ...] = (0.0,)
    codebook_start: float | None = None
    gradient: Literal["sum", "mean"] = "mean"
    update_labels: bool = False

    @model_validator(mode="after")
    def _stages(self) -> Self:
        for rule in self.rules:
            scheme = rule.settings.built()
            if not isinstance(scheme, Codebook) and not (
                isinstance(scheme, Prune) and isinstance(scheme.inner, Codebook | None)
            ):
                raise ValueError("deep_compression: stages are prune, codebook, or both")
        return self

    def built(self, model: nn.Module) -> Callback:
        """The callback."""
        prune: dict[str, Prune] = {}
        codebooks: dict[str, Codebook] = {}
        for name, settings in settings_of(model, self.rules, "deep_compression").items():
            scheme: Any = settings.built()
            if isinstance(scheme, Codebook):
                codebooks[name] = scheme
                continue
            prune[name] = scheme
            if scheme.inner is not None:
                codebooks[name] = scheme.inner
        return DeepCompression(
            prune,
            self.prune_starts,
            codebooks,
            self.codebook_start,
            gradient=self.gradient,
            update_labels=self.update_labels,
        )


class DistillationOptions(_Options):
    """`Distillation` from what ``teacher`` names: a function that gives a model, or that gives a
    function from batches to logits."""

    teacher: Source
    temperature: float = Field(default=2.0, gt=0, allow_inf_nan=False)
    alpha: float = Field(default=0.7, ge=0, le=1)
    ask: Literal["always", "uncertain", "wrong"] = "always"
    threshold: float = 0.5
    features: dict[str, str] = {}
    feature_weight: float = Field(default=1.0, gt=0, allow_inf_nan=False)

    def built(self, model: nn.Module) -> Callback:
        """The callback."""
        options = self.model_dump(exclude={"teacher"})
        return Distillation(self.teacher.teacher(), **options)


class QuantizedDistillationOptions(_Options):
    """`QuantizedDistillation`."""

    rules: tuple[Rule, ...] = Field(min_length=1)
    gradient: Literal["straight_through", "truncated"] = "straight_through"
    every: int | None = Field(default=None, ge=1)
    leave_out: tuple[Side, ...] = ()
    seed: int = Field(default=0, ge=0)

    def built(self, model: nn.Module) -> Callback:
        """The callback."""
        named = settings_of(model, self.rules, "quantized_distillation")
        schemes: dict[str, Scheme] = {name: settings.built() for name, settings in named.items()}
        return QuantizedDistillation(schemes, **self.model_dump(exclude={"rules"}))


class DifferentiableQuantizationOptions(_Options):
    """`DifferentiableQuantization`; ``points`` by glob pattern of parameter names."""

    points: dict[str, int] = Field(min_length=1)
    scaling: Literal["absmax", "linear", "absnorm"] = "absmax"
    granularity: Literal["tensor", "row", "group", "bucket"] = "bucket"
    group_size: int | None = Field(default=None, ge=1)
    start: Literal["quantiles", "uniform"] = "quantiles"
    train_weights: bool = False
    leave_out: tuple[Side, ...] = ()

    def built(self, model: nn.Module) -> Callback:
        """The callback."""
        return DifferentiableQuantization(**self.model_dump())


class BatchNormStatisticsOptions(_Options):
    """`BatchNormStatistics`, behind the methods before it."""

    batches: int = Field(default=100, ge=1)

    def built(self, model: nn.Module) -> Callback:
        """The callback."""
        return BatchNormStatistics(self.batches)


class MethodSpec(_Options):
    """One method, by its name."""

    entropy_penalty: EntropyPenaltyOptions | None = None
    latent_pruning: LatentPruningOptions | None = None
    lc: LCOptions | None = None
    deep_compression: DeepCompressionOptions | None = None
    distillation: DistillationOptions | None = None
    quantized_distillation: QuantizedDistillationOptions | None = None
    differentiable_quantization: DifferentiableQuantizationOptions | None = None
    batch_norm_statistics: BatchNormStatisticsOptions | None = None

    @model_validator(mode="after")
    def _one(self) -> Self:
        if len(self.model_fields_set) != 1 or self.options is None:
            raise ValueError("a method is one name with its options")
        return self

    @property
    def options(self) -> Any:
        """The options that were given."""
        return next((getattr(self, n) for n in self.model_fields_set if getattr(self, n)), None)

    def built(self, model: nn.Module) -> Callback:
        """The callback for ``model``. Raises InputError."""
        try:
            callback: Callback = self.options.built(model)
        except SchemeError as error:
            raise InputError(str(error)) from error
        return callback
