# SPDX-License-Identifier: Apache-2.0
"""Entropy-penalised latents: a weight is decoded from integers whose rate is part of the loss.

Oktay et al. 2020, "Scalable model compression by entropy penalized reparameterization".
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from passes.errors import SchemeError
from passes.schemes import Parameters
from toolkit.nn.codec_rate import CodecRate
from toolkit.nn.compressed import Compressed
from toolkit.nn.decoders import AffineDecoder, Decoder
from toolkit.nn.rounding import round_through

_MOST = 2.0**15 - 1


class Latent(Compressed):
    """weight = decoder(round(positions of the latent)); the rounding passes gradients straight
    through, the rate is that of the positions.

    In evaluation mode the latent is its exponential moving average, where one is kept
    (``ema_decay``), else the latent itself.

    Args:
        shape: Of the weight.
        decoder: From integers to the weight; None for one learned step.
        rate: What counts the bits: a module from positions to bits; None for `CodecRate`.
        ema_decay: Of the average that `update_average` moves; None for none. The first steps
            count more, (1 + n) / (10 + n), so that the start is forgotten.
        bits: Integers are from -(2^(bits - 1) - 1) to 2^(bits - 1) - 1; where the latent is beyond,
            it gets no gradient, as in quantisation with learned steps (Esser et al. 2020, "Learned
            step size quantization", section 2). None for all that 16 bits hold.
    """

    average: Tensor | None
    num_updates: Tensor

    def __init__(
        self,
        shape: tuple[int, ...],
        decoder: Decoder | None = None,
        *,
        rate: nn.Module | None = None,
        ema_decay: float | None = None,
        bits: int | None = None,
    ) -> None:
        super().__init__()
        if bits is not None and not 2 <= bits <= 16:
            raise SchemeError(f"latent: bits must be 2 to 16, not {bits}")
        self.most = _MOST if bits is None else 2.0 ** (bits - 1) - 1
        if ema_decay is not None and not 0 <= ema_decay < 1:
            raise SchemeError(f"latent: ema_decay must be from 0 to below 1, not {ema_decay}")
        self.shape = tuple(shape)
        self.decoder = AffineDecoder() if decoder is None else decoder
        latent_shape = self.decoder.latent_shape(self.shape)
        self.bits = CodecRate(latent_shape) if rate is None else rate
        self.ema_decay = ema_decay
        self.register_buffer("average", None)
        if ema_decay is not None:
            self.register_buffer("num_updates", torch.tensor(0))

    def right_inverse(self, weight: Tensor) -> Tensor:
        """The latent that is trained, of a weight; it begins the average anew."""
        if tuple(weight.shape) != self.shape:
            raise SchemeError(f"latent: expected {self.shape}, found {tuple(weight.shape)}")
        latent = self.decoder.latent_of(weight)
        if self.ema_decay is not None:
            self.average = latent.detach().clone()
            self.num_updates.zero_()
        return latent

    def training_weight(self, original: Tensor) -> Tensor:
        weight: Tensor = self.decoder(self._integers(original))
        return weight

    def evaluation_weight(self, original: Tensor) -> Tensor:
        weight: Tensor = self.decoder(self._integers(self.evaluation_latent(original)))
        return weight

    def evaluation_latent(self, original: Tensor) -> Tensor:
        """The latent that counts in evaluation mode."""
        return original if self.average is None else self.average

    def parameters_of(self, original: Tensor) -> Parameters:
        with torch.no_grad():
            integers = self._integers(self.evaluation_latent(original))
            return self.decoder.parameters_of(integers)

    def rate(self, original: Tensor) -> Tensor:
        latent = original if self.training else self.evaluation_latent(original)
        bits: Tensor = self.bits(self._positions(latent))
        return bits + self.decoder.side_bits()

    def update_average(self, original: Tensor) -> None:
        if self.average is None or self.ema_decay is None:
            return
        with torch.no_grad():
            self.num_updates += 1
            warm = (1 + self.num_updates) / (10 + self.num_updates)
            decay = torch.clamp(warm, max=self.ema_decay)
            self.average.lerp_(original, 1 - decay)

    def resized(self, shape: tuple[int, ...]) -> Latent:
        """The same form, with the same decoder, of a tensor of another shape.

        Raises:
            SchemeError: the decoder has a step for each row, or the rate is of one shape only.
        """
        if getattr(self.decoder, "axis", None) is not None or not hasattr(self.bits, "resized"):
            raise SchemeError("latent: this decoder or rate is of one shape only")
        rate = self.bits.resized(shape)
        made = Latent(shape, self.decoder, rate=rate, ema_decay=self.ema_decay)
        made.most = self.most
        return made

    def _integers(self, latent: Tensor) -> Tensor:
        return round_through(self._positions(latent))

    def _positions(self, latent: Tensor) -> Tensor:
        return self.decoder.positions(latent).clamp(-self.most, self.most)
