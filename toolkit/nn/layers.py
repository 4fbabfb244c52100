# SPDX-License-Identifier: Apache-2.0
"""Layers of torch whose weight has a compressed form from the start: the constructor of the plain
layer, and what the form takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

from torch import nn

from passes.errors import SchemeError
from passes.schemes import Lossless, Prune, Scheme, Uniform
from passes.schemes.partition import Granularity
from passes.schemes.scaling import Scaling
from passes.schemes.weight_values import Rounding
from toolkit.nn.combined import Factored
from toolkit.nn.compressed import Compressed, attach, original_of
from toolkit.nn.decoders import AffineDecoder, Decoder
from toolkit.nn.fitted import Fitted, Gradient
from toolkit.nn.latent import Latent
from toolkit.nn.learned_points import LearnedPoints
from toolkit.nn.masked import Masked
from toolkit.nn.transformed import LearnedCosines, Transformed

Shape = tuple[int, ...]
_SPAN = 3.0
MakeDecoder = Callable[[Shape], Decoder]


class _Entropy:
    """Weight and bias are entropy-penalised latents.

    Args:
        decoder: Of the weight: a decoder (the same object in several layers is shared), or what
            makes one for a shape; None for one learned step.
        bias_decoder: Of the bias; None for one learned step, ``False`` keeps the bias as it is.
        rate, bias_rate: Makes what counts the bits for a shape; None for `CodecRate`.
        ema_decay: Of the averages of the latents.
    """

    def _compress(
        self,
        decoder: Decoder | MakeDecoder | None,
        bias_decoder: Decoder | Literal[False] | None,
        rate: Callable[[Shape], nn.Module] | None,
        ema_decay: float | None,
    ) -> None:
        layer: Any = self
        shape = tuple(layer.weight.shape)
        made = decoder if decoder is None or isinstance(decoder, Decoder) else decoder(shape)
        own_rate = None if rate is None else rate(shape)
        attach(layer, "weight", Latent(shape, made, rate=own_rate, ema_decay=ema_decay))
        if layer.bias is not None and bias_decoder is not False:
            shape = tuple(layer.bias.shape)
            if bias_decoder is None:  # a bias may start as zeros
                bias_decoder = AffineDecoder(0.01)
            attach(layer, "bias", Latent(shape, bias_decoder, ema_decay=ema_decay))


class EntropyLinear(nn.Linear, _Entropy):
    __doc__ = f"`torch.nn.Linear`. {_Entropy.__doc__}"

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        decoder: Decoder | MakeDecoder | None = None,
        bias_decoder: Decoder | Literal[False] | None = None,
        rate: Callable[[Shape], nn.Module] | None = None,
        ema_decay: float | None = None,
    ) -> None:
        super().__init__(in_features, out_features, bias)
        self._compress(decoder, bias_decoder, rate, ema_decay)


class EntropyConv2d(nn.Conv2d, _Entropy):
    __doc__ = f"`torch.nn.Conv2d`. {_Entropy.__doc__}"

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        *args: Any,
        decoder: Decoder | MakeDecoder | None = None,
        bias_decoder: Decoder | Literal[False] | None = None,
        rate: Callable[[Shape], nn.Module] | None = None,
        ema_decay: float | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, *args, **kwargs)
        self._compress(decoder, bias_decoder, rate, ema_decay)


class TransformLinear(nn.Linear):
    """`torch.nn.Linear` trained in the transform domain.

    Args:
        kind: A transform (`passes.schemes.Transform.kind`), or ``cosine`` for rows that are cosines
            of learned frequencies (`LearnedCosines`).
        keep: The share of low frequencies that exist; not for ``cosine``.
        axes, block: As `passes.schemes.Transform`.
        inner: The scheme of coefficients, or of amplitudes and frequencies; None keeps floats.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        kind: str = "dct",
        keep: float = 1.0,
        axes: Sequence[int] | None = None,
        block: int | None = None,
        inner: Scheme | None = None,
    ) -> None:
        super().__init__(in_features, out_features, bias)
        shape = (out_features, in_features)
        form: Compressed
        if kind == "cosine":
            form = LearnedCosines(shape, inner=inner)
        else:
            form = Transformed(shape, kind, axes=axes, block=block, keep=keep, inner=inner)
        attach(self, "weight", form)


class TransformConv2d(nn.Conv2d):
    """`torch.nn.Conv2d` trained in the transform domain: of the taps, unless ``axes`` name others
    (0 output channels, 1 input channels, 2 and 3 taps; separable along all of them). Arguments as
    `TransformLinear`."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        *args: Any,
        kind: str = "dct",
        keep: float = 1.0,
        axes: Sequence[int] | None = None,
        block: int | Sequence[int] | None = None,
        inner: Scheme | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, *args, **kwargs)
        shape = tuple(self.weight.shape)
        form = Transformed(shape, kind, axes=axes, block=block, keep=keep, inner=inner)
        attach(self, "weight", form)


def _quantised(
    layer: nn.Linear | nn.Conv2d,
    bits: int,
    points: int | None,
    scaling: Scaling,
    granularity: Granularity,
    group_size: int | None,
    rounding: Rounding,
    gradient: Gradient,
    learned_step: bool,
) -> None:
    form: Compressed
    shape = tuple(layer.weight.shape)
    if learned_step:
        if points is not None or granularity not in ("tensor", "row") or bits < 2:
            raise SchemeError(
                "a learned step goes with bits from 2 on, and granularity tensor or row"
            )
        by_row = granularity == "row"
        decoder = AffineDecoder(
            relative_step=_SPAN / (2 ** (bits - 1) - 1),
            axis=0 if by_row else None,
            size=shape[0] if by_row else None,
        )
        form = Latent(shape, decoder, bits=bits)
    elif points is not None:
        form = LearnedPoints(
            points, scaling=scaling, granularity=granularity, group_size=group_size
        )
    else:
        scheme = Uniform(
            bits=bits,
            scaling=scaling,
            granularity=granularity,
            group_size=group_size,
            rounding=rounding,
        )
        form = Fitted(scheme, gradient=gradient)
    attach(layer, "weight", form)


class QuantizedLinear(nn.Linear):
    """`torch.nn.Linear` with a quantised weight: gradients are taken at its quantised value.

    Args:
        bits: Of uniform quantisation.
        points: How many learned points in place of that; None for uniform.
        scaling, granularity, group_size, rounding: As `passes.schemes.Uniform`.
        gradient: As `Fitted`.
        learned_step: The step is trained, per tensor or row, in place of following from the largest
            weight; it starts where the ends are three times the root mean square.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        bits: int = 4,
        points: int | None = None,
        scaling: Scaling = "absmax",
        granularity: Granularity = "tensor",
        group_size: int | None = None,
        rounding: Rounding = "nearest",
        gradient: Gradient = "straight_through",
        learned_step: bool = False,
    ) -> None:
        super().__init__(in_features, out_features, bias)
        _quantised(
            self, bits, points, scaling, granularity, group_size, rounding, gradient, learned_step
        )


class QuantizedConv2d(nn.Conv2d):
    """`torch.nn.Conv2d` with a quantised weight; arguments as `QuantizedLinear`."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        *args: Any,
        bits: int = 4,
        points: int | None = None,
        scaling: Scaling = "absmax",
        granularity: Granularity = "tensor",
        group_size: int | None = None,
        rounding: Rounding = "nearest",
        gradient: Gradient = "straight_through",
        learned_step: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, *args, **kwargs)
        _quantised(
            self, bits, points, scaling, granularity, group_size, rounding, gradient, learned_step
        )


class MaskedLinear(nn.Linear):
    """`torch.nn.Linear` with a mask (`Masked`): ``prune`` is fitted at once, and whenever the
    form's `fit` is called; None starts with a mask of ones."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        prune: Prune | None = None,
        inner: Scheme | None = None,
    ) -> None:
        super().__init__(in_features, out_features, bias)
        _masked(self, prune, inner)


class MaskedConv2d(nn.Conv2d):
    """`torch.nn.Conv2d` with a mask; arguments as `MaskedLinear`."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        *args: Any,
        prune: Prune | None = None,
        inner: Scheme | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, *args, **kwargs)
        _masked(self, prune, inner)


def _masked(layer: nn.Linear | nn.Conv2d, prune: Prune | None, inner: Scheme | None) -> None:
    form = Masked(tuple(layer.weight.shape), prune, inner)
    attach(layer, "weight", form)
    if prune is not None:
        form.fit(original_of(layer, form))


class LowRankLinear(nn.Linear):
    """`torch.nn.Linear` whose weight is a product of two factors of ``rank`` (`Factored`)."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        rank: int,
        inner: Scheme | None = None,
    ) -> None:
        super().__init__(in_features, out_features, bias)
        attach(self, "weight", Factored((out_features, in_features), rank, inner=inner))


class LowRankConv2d(nn.Conv2d):
    """`torch.nn.Conv2d` whose weight is a product of two factors of ``rank`` (`Factored`)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        *args: Any,
        rank: int,
        inner: Scheme | None = None,
        reshape: Literal["out_in", "spatial"] = "out_in",
        **kwargs: Any,
    ) -> None:
        super().__init__(in_channels, out_channels, kernel_size, *args, **kwargs)
        shape = tuple(self.weight.shape)
        attach(self, "weight", Factored(shape, rank, inner=inner or Lossless(), reshape=reshape))
