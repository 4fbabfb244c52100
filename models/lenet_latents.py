# SPDX-License-Identifier: Apache-2.0
"""LeNets with entropy-penalised latents: Oktay et al. 2020, "Scalable model compression by entropy
penalized reparameterization", with a rate of whole rows and columns and a teacher."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from models.data.splits import Splits
from models.mnist_recipes import train_digits
from models.recipe import Run
from toolkit.nn import AffineDecoder, DensityRate, Latent, alive_units, attach, keep_units
from toolkit.train import EntropyPenalty, OptimizerSettings

BIAS_STEP = 0.1
_RATE = 2e-3  # of weights; latents move by this over a usual step
_USUAL_STEP = 0.06
_STEP_FACTOR = 0.15


def start(model: nn.Sequential, gain: float = 2.0) -> None:
    """Normal weights of variance gain / inputs (1 / inputs for convolutions), biases 0: the steps
    of the latents stand in a fixed relation to them."""
    for module in model:
        if isinstance(module, nn.Linear | nn.Conv2d):
            inputs = module.weight[0].numel()
            variance = (1.0 if isinstance(module, nn.Conv2d) else gain) / inputs
            nn.init.normal_(module.weight, std=variance**0.5)
            assert module.bias is not None
            nn.init.zeros_(module.bias)


def attach_latents(
    model: nn.Sequential, steps: Mapping[str, float], places: Mapping[str, int] | None = None
) -> None:
    """Gives every weight and bias a latent in units of its step.

    Args:
        model: A LeNet.
        steps: Step to start from, by layer.
        places: Of layers behind a flattened image, how many inputs a channel has.
    """
    for name, step in steps.items():
        layer = model.get_submodule(name)
        for tensor, start_step in (("weight", step), ("bias", BIAS_STEP)):
            shape = tuple(getattr(layer, tensor).shape)
            blocks = (places or {}).get(name, 1) if tensor == "weight" else 1
            rate = DensityRate(shape, places=blocks)
            decoder = AffineDecoder(start_step, units="step")
            attach(layer, tensor, Latent(shape, decoder, rate=rate))


def plain_optimizer() -> OptimizerSettings:
    """Adam for the network before it has latents."""
    return OptimizerSettings(name="adam", rate=_RATE)


def latent_optimizer() -> OptimizerSettings:
    """Adam for latents, and at a smaller rate for the logarithms of their steps."""
    return OptimizerSettings(
        name="adam", rate=_RATE / _USUAL_STEP, rate_factors={"*.log_step": _STEP_FACTOR}
    )


def train_latents(
    run: Run,
    splits: Splits,
    logits: Tensor,
    model: nn.Sequential,
    *,
    epochs: int,
    warmup: float,
    batch_size: int,
) -> nn.Module:
    """Trains latents under the rate that the recipe asks for and takes out units that died.

    Args:
        run: Its option ``multiplier`` is the price of a bit.
        splits: Of `load_digits`.
        logits: Of `digits_logits`.
        model: With latents.
        epochs: Of this part of the training.
        warmup: Share of the epochs over which the price rises.
        batch_size: Digits of a step.

    Returns:
        The network without dead units.
    """
    penalty = EntropyPenalty(run.options["multiplier"], warmup=warmup * epochs)
    train_digits(
        run,
        splits,
        logits,
        model,
        [penalty],
        stage="latents",
        epochs=epochs,
        batch_size=batch_size,
        optimizer=latent_optimizer(),
    )
    return keep_units(model, alive_units(model))
