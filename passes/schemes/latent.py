# SPDX-License-Identifier: Apache-2.0
"""What is learned in training, as schemes: how a latent or a set of points is to be trained, and
what both are before that.

Recipes are the same for networks that are trained and for files: `toolkit.nn.wrap` reads the
options of these schemes, `fit` makes of a weight what training starts from.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from passes.errors import SchemeError
from passes.schemes.base import FitContext, Parameters
from passes.schemes.partition import Granularity, check_partition
from passes.schemes.points import Points
from passes.schemes.scaled import Scaled, ScaledParameters
from passes.schemes.scaling import Scaling
from passes.schemes.transform import Transform
from passes.schemes.transform_kinds import check_kind
from passes.schemes.uniform import Uniform
from passes.schemes.weight_values import finite_float32

_RELATIVE_STEP = 0.5


@dataclass(frozen=True)
class Latent:
    """Integers and learned steps (Oktay et al. 2020, "Scalable model compression by entropy
    penalized reparameterization"). Without training: each weight, or coefficient, becomes the
    nearest multiple of the step.

    Attributes:
        step: The step to start from.
        relative_step: The same as a multiple of the weight's root mean square; 0.5 where neither is
            given.
        granularity: One step per tensor, per output channel (``row``) or per input channel
            (``column``).
        domain: ``weight``, or a transform (`Transform.kind`), then with a step per frequency.
        block: Elements per transform; None for the taps of a convolution, or the last axis.
        matrix: A full matrix of learned steps for the taps of each kernel (or each ``block``).
        bits: Limits the integers in training, 2 to 16; None for 16. Without training the step
            decides.
        units: What training moves: the ``weight`` itself, or the latent in steps (``step``).
        ema_decay: Of the average of latents that is kept; None for none.
        rate: What counts the bits in training: the ``codec``, a ``factorized`` prior, or the
            ``density`` of whole rows and columns.
        places: Of the rate ``density``: how many inputs each channel of a flattened image has.
        interval: Steps of training between two fits of the codec's tables.
        shared: Latents that give the same name share their decoder.
    """

    step: float | None = None
    relative_step: float | None = None
    granularity: Literal["tensor", "row", "column"] = "tensor"
    domain: str = "weight"
    block: int | None = None
    matrix: bool = False
    bits: int | None = None
    units: Literal["weight", "step"] = "weight"
    ema_decay: float | None = None
    rate: Literal["codec", "factorized", "density"] = "codec"
    places: int = 1
    interval: int = 50
    shared: str | None = None

    def __post_init__(self) -> None:
        if self.step is not None and self.relative_step is not None:
            raise SchemeError("latent: give at most one of step and relative_step")
        for name in ("step", "relative_step"):
            value = getattr(self, name)
            if value is not None and not (np.isfinite(value) and value > 0):
                raise SchemeError(f"latent: {name} must be positive and finite, not {value}")
        for name, known in (
            ("granularity", ("tensor", "row", "column")),
            ("units", ("weight", "step")),
            ("rate", ("codec", "factorized", "density")),
        ):
            if getattr(self, name) not in known:
                found = getattr(self, name)
                raise SchemeError(
                    f"latent: {name} must be one of {', '.join(known)}, not {found!r}"
                )
        if self.domain != "weight":
            check_kind(self.domain)
        mixes = self.matrix or self.domain != "weight"
        if (self.matrix and self.domain != "weight") or (mixes and self.granularity != "tensor"):
            raise SchemeError("latent: give only one of granularity, domain and matrix")
        if self.block is not None and not mixes:
            raise SchemeError("latent: a block goes with domain or matrix")
        if self.shared is not None and (mixes or self.granularity != "tensor"):
            raise SchemeError("latent: what is shared is a decoder of one step")
        if self.ema_decay is not None and not 0 <= self.ema_decay < 1:
            raise SchemeError(f"latent: ema_decay must be from 0 to below 1, not {self.ema_decay}")
        if self.bits is not None and not 2 <= self.bits <= 16:
            raise SchemeError(f"latent: bits must be 2 to 16, not {self.bits}")
        if self.places < 1 or (self.places > 1 and self.rate != "density"):
            raise SchemeError(
                f"latent: places, at least 1, go with rate density, not {self.places}"
            )
        if self.interval < 1:
            raise SchemeError(f"latent: interval must be at least 1, not {self.interval}")

    def fit(self, weight: np.ndarray, context: FitContext | None = None) -> Parameters:
        """Takes a float32, float16 or bfloat16 array; SchemeError for an empty one, NaN or
        infinity, and where `Uniform` or `Transform` refuses it."""
        if self.domain == "weight":
            axis = {"tensor": None, "row": None, "column": 1}[self.granularity]
            relative = None if self.step is not None else self.relative_step or _RELATIVE_STEP
            return Uniform(
                step=self.step,
                relative_step=relative,
                granularity="tensor" if self.granularity == "tensor" else "row",
                axis=axis,
            ).fit(weight, context)
        step = self.step
        if step is None:
            squares = np.square(finite_float32(weight), dtype=np.float64)
            step = (self.relative_step or _RELATIVE_STEP) * float(np.sqrt(squares.mean())) or 1.0
        whole = Transform(self.domain, block=self.block, step=1.0)
        frequencies = whole.folding(weight.shape).folded_shape[2]
        scheme = Transform(self.domain, block=self.block, steps=(step,) * frequencies)
        return scheme.fit(weight, context)


@dataclass(frozen=True)
class LearnedPoints:
    """Points that training moves (Polino, Pascanu, Alistarh 2018, "Model compression via
    distillation and quantization", section 4). Without training: where they start.

    Attributes:
        count: Number of points, 1 to 65535.
        scaling, granularity, group_size: As `Scaled`.
        start: Quantiles of the scaled weight, or evenly over its range.
    """

    count: int
    scaling: Scaling = "absmax"
    granularity: Granularity = "bucket"
    group_size: int | None = None
    start: Literal["quantiles", "uniform"] = "quantiles"

    def __post_init__(self) -> None:
        if not 1 <= self.count <= 2**16 - 1:
            raise SchemeError(f"learned_points: count must be 1 to 65535, not {self.count}")
        if self.start not in ("quantiles", "uniform"):
            raise SchemeError(
                f"learned_points: start must be quantiles or uniform, not {self.start!r}"
            )
        check_partition("learned_points", self.granularity, self.group_size)

    def fit(self, weight: np.ndarray, context: FitContext | None = None) -> ScaledParameters:
        """Takes a float32, float16 or bfloat16 array; SchemeError as `Scaled` and `Points`."""
        scaled = self._scaled((0.0,)).fit(weight, context)
        values = finite_float32(weight)
        if scaled.offset is not None:
            values = values - scaled.partition.spread(scaled.offset)
        values = np.asarray(values / scaled.partition.spread(scaled.scale)).reshape(-1)
        if self.start == "quantiles":
            points = np.quantile(values, (np.arange(self.count) + 0.5) / self.count)
        else:
            points = np.linspace(values.min(), values.max(), self.count)
        return self._scaled(tuple(points.astype(np.float32).tolist())).fit(weight, context)

    def _scaled(self, points: tuple[float, ...]) -> Scaled:
        return Scaled(
            Points(points),
            scaling=self.scaling,
            granularity=self.granularity,
            group_size=self.group_size,
        )
