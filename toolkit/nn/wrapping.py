# SPDX-License-Identifier: Apache-2.0
"""Models by recipe: each tensor gets the form that the recipe of `toolkit compress` asks for."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from passes import Recipe, SchemeError, SettingsError, Weight, select_weights
from passes.schemes import (
    CosineRows,
    FitContext,
    Latent,
    LearnedPoints,
    LowRank,
    LowRankParameters,
    Prune,
    Scheme,
    Sum,
)
from passes.select_weights import Role
from passes.stages import SCHEMES
from toolkit import recipes
from toolkit.errors import InputError
from toolkit.nn import combined, latent, learned_points, masked, transformed
from toolkit.nn.baking import plain_copy
from toolkit.nn.codec_rate import CodecRate
from toolkit.nn.compressed import Compressed, as_array, attach, original_of
from toolkit.nn.decoders import AffineDecoder, Decoder
from toolkit.nn.density_rate import DensityRate
from toolkit.nn.factorized_prior import FactorizedPrior, prior_per_tap
from toolkit.nn.fitted import Fitted
from toolkit.nn.frequency_decoder import FrequencyDecoder, MatrixDecoder
from toolkit.nn.joint import Joint, Places, joint_forms

# Kinds of modules: the operators that their weights become, their role, the channel axis.
_KINDS: tuple[tuple[type[nn.Module], tuple[str, ...], Role, int], ...] = (
    (nn.Linear, ("Gemm", "MatMul"), "weight", 0),
    (nn.Conv1d, ("Conv",), "weight", 0),
    (nn.Conv2d, ("Conv",), "weight", 0),
    (nn.Conv3d, ("Conv",), "weight", 0),
    (nn.ConvTranspose1d, ("ConvTranspose",), "weight", 1),
    (nn.ConvTranspose2d, ("ConvTranspose",), "weight", 1),
    (nn.ConvTranspose3d, ("ConvTranspose",), "weight", 1),
    (nn.Embedding, ("Gather",), "embedding", 0),
    (nn.EmbeddingBag, ("Gather",), "embedding", 0),
    (nn.LSTM, ("LSTM",), "recurrent", 0),
    (nn.GRU, ("GRU",), "recurrent", 0),
    (nn.RNN, ("RNN",), "recurrent", 0),
    (nn.MultiheadAttention, ("MatMul",), "weight", 0),
    (nn.Bilinear, ("MatMul",), "weight", 0),
)


def wrap(
    model: nn.Module,
    recipe: Recipe | str | os.PathLike[str],
    *,
    example: Tensor | Sequence[Any] | Mapping[str, Any] | None = None,
) -> nn.Module:
    """Gives the tensors of ``model`` the forms that ``recipe`` asks for, and returns it.

    Rules match the names of parameters (``features.0.weight``) and of modules (``node``), operators
    by the kind of module (Linear is Gemm and MatMul, Conv2d is Conv, Embedding is Gather, LSTM is
    LSTM), and roles: one-dimensional tensors are ``minor``. Stages become trainable forms: `latent`
    and `learned_points` their own, `prune` a mask, `low_rank` two factors, `cosine_rows` learned
    frequencies, `sum` a sum of forms; every other scheme is fitted at each step with the gradient
    straight through. Tensors of a rule with ``joint`` stages share them: one budget, one codebook,
    one scale.

    Args:
        model: Is changed.
        recipe: A recipe, its YAML file, or the name of a ready one.
        example: Inputs, of at least two samples: operators and roles are then those of the ONNX
            graph that the model becomes, in place of those of the kinds of modules.

    Raises:
        InputError: the recipe is wrong, one of its rules matches nothing, or its form cannot be
            made of a tensor.
    """
    try:
        found = recipe if isinstance(recipe, Recipe) else recipes.read(recipe)
        weights = weights_of(model, example)
        settings = found.assign(weights)
    except SettingsError as error:
        raise InputError(str(error)) from error
    places = {name: (module, own) for name, module, own, _ in _tensors(model)}
    axes = {weight.name: weight.channel_axis or 0 for weight in weights}
    decoders: dict[str, AffineDecoder] = {}
    groups: dict[Any, list[str]] = {}
    for name, how in settings.items():
        if how.scheme == "keep" and how.stages is None:
            continue
        groups.setdefault(how.group_key if how.joint else name, []).append(name)
    for names in groups.values():
        how, own_places = settings[names[0]], {name: places[name] for name in names}
        try:
            if how.joint:
                shared = {SCHEMES[stage] for stage in how.joint}
                forms = joint_forms(how.built(), shared, own_places, axes)
            else:
                ((name, (module, own)),) = own_places.items()
                tensor = getattr(module, own)
                forms = {name: form_of(how.built(), tensor, decoders, axes[name])}
            _attach(forms, own_places)
        except SchemeError as error:
            raise InputError(f"{', '.join(names)}: {error}") from error
    return model


def _attach(forms: Mapping[str, Compressed], places: Places) -> None:
    """Gives tensors their forms, and those their masks."""
    for name, (module, own) in places.items():
        attach(module, own, forms[name])
    for name, (module, _) in places.items():
        form = forms[name]
        if isinstance(form, masked.Masked):
            form.fit(original_of(module, form))
    joint = next((form for form in forms.values() if isinstance(form, Joint)), None)
    if joint is not None:
        joint.group.fit_masks()


def form_of(
    scheme: Scheme,
    tensor: Tensor,
    decoders: dict[str, AffineDecoder] | None = None,
    channel_axis: int = 0,
) -> Compressed:
    """The trainable form of a scheme for a tensor; ``decoders`` are shared ones by name,
    ``channel_axis`` is that of output channels."""
    shape = tuple(tensor.shape)
    if isinstance(scheme, Latent):
        return _latent(scheme, shape, {} if decoders is None else decoders)
    if isinstance(scheme, LearnedPoints):
        return learned_points.LearnedPoints(
            scheme.count,
            scaling=scheme.scaling,
            granularity=scheme.granularity,
            group_size=scheme.group_size,
            start=scheme.start,
            channel_axis=channel_axis,
        )
    if isinstance(scheme, Prune):
        return masked.Masked(shape, scheme, scheme.inner, channel_axis=channel_axis)
    if isinstance(scheme, LowRank):
        fitted = scheme.fit(as_array(tensor), FitContext(channel_axis=0))
        rank = max(fitted.rank if isinstance(fitted, LowRankParameters) else 1, 1)
        return combined.Factored(shape, rank, inner=scheme.inner, reshape=scheme.reshape)
    if isinstance(scheme, CosineRows):
        return transformed.LearnedCosines(shape, inner=scheme.inner, start="weight")
    if isinstance(scheme, Sum):
        return combined.Summed(
            [form_of(part, tensor, decoders, channel_axis) for part in scheme.parts]
        )
    return Fitted(scheme, channel_axis=channel_axis)


def _latent(
    scheme: Latent, shape: tuple[int, ...], decoders: dict[str, AffineDecoder]
) -> latent.Latent:
    relative = scheme.relative_step or 0.5
    decoder: Decoder
    if scheme.domain != "weight":
        decoder = FrequencyDecoder(
            shape, scheme.domain, block=scheme.block, step=scheme.step, relative_step=relative
        )
    elif scheme.matrix:
        decoder = MatrixDecoder(shape, block=scheme.block, step=scheme.step, relative_step=relative)
    elif scheme.shared is not None and scheme.shared in decoders:
        decoder = decoders[scheme.shared]
    else:
        axis = {"tensor": None, "row": 0, "column": 1}[scheme.granularity]
        if axis is not None and axis >= len(shape):
            raise SchemeError(f"latent: granularity {scheme.granularity} of rank {len(shape)}")
        affine = AffineDecoder(
            scheme.step,
            relative_step=relative,
            axis=axis,
            size=None if axis is None else shape[axis],
            units=scheme.units,
        )
        if scheme.shared is not None:
            decoders[scheme.shared] = affine
        decoder = affine
    rate: CodecRate | DensityRate | FactorizedPrior
    if scheme.rate == "factorized":
        rate = prior_per_tap(shape) if scheme.domain == "weight" else FactorizedPrior()
    elif scheme.rate == "density":
        latent_shape = decoder.latent_shape(shape)
        if len(latent_shape) > 1 and latent_shape[1] % scheme.places:
            raise SchemeError(
                f"latent: {latent_shape[1]} inputs are no channels of {scheme.places}"
            )
        rate = DensityRate(latent_shape, places=scheme.places)
    else:
        rate = CodecRate(decoder.latent_shape(shape), interval=scheme.interval)
    return latent.Latent(shape, decoder, rate=rate, ema_decay=scheme.ema_decay, bits=scheme.bits)


def _tensors(model: nn.Module) -> list[tuple[str, nn.Module, str, Tensor]]:
    """Parameters without a parametrization: name, module, name in the module, tensor; shared ones
    once."""
    found, seen = [], set[int]()
    for prefix, module in model.named_modules():
        if isinstance(module, parametrize.ParametrizationList | Compressed):
            continue
        for own, tensor in module.named_parameters(recurse=False):
            name = f"{prefix}.{own}" if prefix else own
            inside = ".parametrizations." in f".{name}"
            if id(tensor) not in seen and not inside and tensor.dtype == torch.float32:
                seen.add(id(tensor))
                found.append((name, module, own, tensor))
    return found


def weights_of(model: nn.Module, example: Any = None) -> list[Weight]:
    """The tensors of ``model`` as rules see them, by their names in the state dict; with
    ``example`` inputs, as those of its ONNX graph."""
    tensors = _tensors(model)
    if example is not None:
        from toolkit.nn.onnx_graph import graph_of

        names = {name for name, *_ in tensors}
        graph = graph_of(plain_copy(model), example)
        return [weight for weight in select_weights(graph) if weight.name in names]
    return [_weight(name, module, tensor) for name, module, _, tensor in tensors]


def _weight(name: str, module: nn.Module, tensor: Tensor) -> Weight:
    kind = next((known for known in _KINDS if isinstance(module, known[0])), None)
    operators, role, axis = kind[1:] if kind else ((), "weight", 0)
    is_minor = tensor.ndim < 2
    return Weight(
        name=name,
        value=ir.Value(name=name),
        shape=tuple(tensor.shape),
        dtype=ir.DataType.FLOAT,
        role="minor" if is_minor else role,
        op_types=operators,
        nodes=(name.rpartition(".")[0],) if "." in name else (),
        channel_axis=None if is_minor else axis,
        is_convolution=tensor.ndim > 2,
    )
