# SPDX-License-Identifier: Apache-2.0
"""The order in which the passes run: read, fit, encode, embed functions, clean up, count."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from toolkit.allocation import step_that_holds
from toolkit.errors import InputError
from toolkit.mapped_arrays import keeper, symbols_kept
from toolkit.memory import release_memory

if TYPE_CHECKING:
    import onnx_ir as ir

    from passes.bias_correction import BiasPlace
    from passes.embed_functions import Portable
    from passes.encode_weights import EncodedWeight
    from passes.schemes import Moments, Parameters, RowUse
    from passes.select_weights import Weight
    from passes.settings import Coding, WeightSettings

CHUNK = 1 << 16
"""Values that are quantised at a time in a search."""

Array = npt.NDArray[Any]


@dataclass
class Source:
    """A model that was read: `num_bytes` of its files, `weights` worth compressing by name, `odd`,
    the names of those that hold NaN or infinity, and the files with `external` data."""

    path: Path
    model: ir.Model
    num_bytes: int
    notes: list[str]
    weights: dict[str, Weight]
    odd: list[str]
    external: tuple[Path, ...] = ()
    merged: dict[str, str] = field(default_factory=dict)

    @property
    def stored_once(self) -> str:
        """Which weights are stored with which, in words; empty where there are none."""
        pairs = ", ".join(f"'{name}' is '{of}'" for name, of in list(self.merged.items())[:3])
        more = f" and {len(self.merged) - 3} more" if len(self.merged) > 3 else ""
        return f"stored once: {pairs}{more}" if pairs else ""


def read_source(path: Path) -> Source:
    """Reads a model and selects its weights. Raises `InputError` naming what is wrong."""
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    from passes.errors import ModelError
    from passes.merge_weights import MergeWeights
    from passes.model_file import read_model
    from passes.select_weights import select_weights

    try:
        loaded = read_model(path)
    except ModelError as error:
        raise InputError(str(error)) from error
    _detach(loaded.model)
    RemoveUnusedNodesPass()(loaded.model)
    merged = MergeWeights()(loaded.model).merged
    release_memory()
    weights = {weight.name: weight for weight in select_weights(loaded.model)}
    source = Source(
        path,
        loaded.model,
        loaded.num_bytes,
        list(loaded.notes),
        weights,
        _odd(weights),
        loaded.external,
        merged,
    )
    if merged:
        source.notes.append(source.stored_once)
    return source


def fold_layers(source: Source) -> None:
    """Folds each BatchNormalization into the layer before it, where it can be; changes `source`."""
    from passes.fold_batch_norm import FoldBatchNorm
    from passes.select_weights import select_weights

    folded = FoldBatchNorm().call(source.model).folded
    if folded:
        source.notes.append(f"{len(folded)} BatchNormalization folded into the layer before it")
        source.weights = {weight.name: weight for weight in select_weights(source.model)}
        source.odd = _odd(source.weights)


def _odd(weights: Mapping[str, Weight]) -> list[str]:
    return [
        name
        for name, weight in weights.items()
        if weight.role != "integer" and not np.isfinite(weight.array()).all()
    ]


def _detach(model: ir.Model) -> None:
    """Copies tensors out of the parsed protobuf, which keeps all of its memory until the last of
    them is gone and copies a tensor at each access. External data stays memory-mapped."""
    import onnx_ir as ir

    for value in model.graph.initializers.values():
        tensor = value.const_value
        if tensor is None or isinstance(tensor, (ir.ExternalTensor, ir.Tensor)):
            continue
        if tensor.dtype == ir.DataType.STRING:
            continue
        value.const_value = ir.Tensor(tensor.numpy(), dtype=tensor.dtype, name=tensor.name)


def quantised_values(array: Array, step: float, threads: int = 2) -> Array:
    """The values that `array` decodes to after uniform quantisation with one `step`: scheme
    `Uniform` on chunks, which needs little memory beside the result."""
    from passes.schemes import Uniform, decode

    scheme = Uniform(step=step)
    flat = array.reshape(-1)
    result = np.empty_like(flat)

    def fill(start: int) -> None:
        part = slice(start, start + CHUNK)
        result[part] = decode(scheme.fit(flat[part]))

    starts = range(0, flat.size, CHUNK)
    if len(starts) == 1:
        fill(0)
    else:
        with ThreadPoolExecutor(max(1, threads)) as pool:
            list(pool.map(fill, starts))
    return result.reshape(array.shape)


def fit_all(
    source: Source,
    settings: Mapping[str, WeightSettings],
    notes: list[str],
    moments: Mapping[str, Moments | RowUse] | None = None,
    known: Mapping[str, Parameters] | None = None,
) -> dict[str, Parameters]:
    """Parameters of every weight that is not kept, by the `moments` of their inputs; those in
    `known` are not fitted again. Biases that take up the mean error of weights change in the model
    itself and are fitted last. What schemes decided goes to `notes`. Raises `InputError` naming the
    weight."""
    from passes.errors import SchemeError
    from passes.fit_weight import explained, fit_group, fit_weight, joint_groups, positions_for

    positions = positions_for(source.model, list(settings.values()))
    remarks: dict[str, list[str]] = {name: [] for name in settings}
    keep = keeper(source.num_bytes)
    fitted: dict[str, Parameters] = {}
    for group in joint_groups(settings, source.weights):
        members = {name: source.weights[name] for name in group}
        try:
            fitted |= fit_group(members, settings[group[0]], remarks, positions)
        except SchemeError as error:
            raise InputError(f"{source.path}: {explained(group, error)}") from error
    places = centred_places(source, settings)
    biases = {place.bias for place in places.values()} if moments is not None else set[str]()
    last = biases
    for name in sorted(settings, key=lambda name: name in biases):
        how, weight = settings[name], source.weights[name]
        if name in last and moments is not None:
            last = set()
            correct_biases(source, places, fitted, moments)
        if name in biases and how.step is not None:
            step = step_that_holds(weight.array(), how.step)
            how = how.model_copy(update={"step": step})
        if name not in fitted and known is not None and name in known:
            fitted[name] = known[name]
        if name not in fitted:
            try:
                parameters = fit_weight(
                    weight.array(),
                    how,
                    weight.channel_axis,
                    remarks[name],
                    positions.get(name),
                    None if moments is None else moments.get(name),
                    name in places,
                )
            except SchemeError as error:
                raise InputError(f"{source.path}: weight {name}: {error}") from error
            if parameters is not None:
                fitted[name] = symbols_kept(parameters, keep)
        notes += [f"{name}: {remark}" for remark in remarks[name]]
    if last and moments is not None:
        correct_biases(source, places, fitted, moments)
    return {name: fitted[name] for name in settings if name in fitted}


def centred_places(source: Source, settings: Mapping[str, WeightSettings]) -> dict[str, BiasPlace]:
    """Where the biases are that take up the mean error of the weights whose settings ask for it."""
    from passes.bias_correction import bias_places
    from passes.schemes import Compensated, CompensatedTrellis
    from passes.stages import nested

    kinds = Compensated | CompensatedTrellis
    centred = [
        name
        for name, how in settings.items()
        if how.stages is not None
        and any(isinstance(part, kinds) and part.centred for part in nested(how.built()))
    ]
    return bias_places(source.model, centred) if centred else {}


def correct_biases(
    source: Source,
    places: Mapping[str, BiasPlace],
    fitted: Mapping[str, Parameters],
    moments: Mapping[str, Moments | RowUse],
) -> None:
    """Gives the biases at `places` the mean of what the `fitted` weights miss."""
    from passes.bias_correction import bias_changes

    initializers = source.model.graph.initializers
    tensors = {place.bias: initializers[place.bias].const_value for place in places.values()}
    biases = {name: np.asarray(t.numpy()) for name, t in tensors.items() if t is not None}
    for name in places:  # one weight's error at a time: it is as large as the weight
        if name in fitted:
            decoded = fitted[name].decode()
            error = np.subtract(source.weights[name].array(), decoded, dtype=np.float32)
            biases |= bias_changes(places, [(name, error)], moments, biases)
    set_initializers(source.model, biases)


def set_initializers(model: ir.Model, arrays: Mapping[str, Array]) -> None:
    """Gives initializers other values, which count for the file: a bias of zeros takes no byte."""
    import onnx_ir as ir

    for name, array in arrays.items():
        model.graph.initializers[name].const_value = ir.Tensor(array, name=name)


def keep_factors(
    model: ir.Model, fitted: Mapping[str, Parameters]
) -> tuple[dict[str, Parameters], list[str]]:
    """Lets layers compute with the factors of low-rank weights where that saves arithmetic. Changes
    `model`; returns what is to be encoded, factors by their new names, and a note for each such
    weight."""
    from passes.factorize_weights import FactorizeWeights
    from passes.schemes import LowRankParameters, TuckerParameters

    kinds = LowRankParameters | TuckerParameters
    plan = {name: found for name, found in fitted.items() if isinstance(found, kinds)}
    if not plan:
        return dict(fitted), []
    result = FactorizeWeights(plan).call(model)
    rest = {name: found for name, found in fitted.items() if name not in plan}
    notes = [
        f"{found.name}: kept as factors: {found.after / found.before:.0%} of the arithmetic"
        for found in result.factorized
    ]
    return {**rest, **result.plan}, [*notes, *result.notes]


@dataclass(frozen=True)
class FileLayout:
    """How a file carries weights and their decoder: when function bodies are embedded, and how many
    symbols a lane of the wide coder decodes one after the other, 0 for what suits a CPU."""

    portable: Portable = "auto"
    lane_steps: int = 0

    def __post_init__(self) -> None:
        if self.portable not in ("auto", "always", "never"):
            raise InputError(
                f"portable: expected 'auto', 'always' or 'never', found {self.portable!r}"
            )


GPU_LANE_STEPS = 256
"""Gives a block for each 8,192 symbols: 32 MiB of float16 weights then have 2,000 of the 4,000
blocks that an H200 decodes at a time, each in half the time of 512 steps. Files grow by 1 to 7 %:
MiniLM from 3.02 MB to 3.23 at 4 bits (512: 3.12), from 13.66 to 13.90 at 8 bits (512: 13.78)."""


@dataclass
class Finished:
    """A compressed model in memory: its rows per weight, and what the passes said."""

    model: ir.Model
    encoded: list[EncodedWeight]
    shared_bytes: int
    notes: list[str]
    functions: list[str]

    @property
    def num_bytes(self) -> int:
        """Bytes of the model as one file."""
        from passes.model_writer import model_to_proto

        return int(model_to_proto(self.model).ByteSize())


def finish(
    model: ir.Model,
    plan: Mapping[str, WeightSettings | Parameters],
    layout: FileLayout,
    codings: Mapping[str, Coding] | None = None,
    compact: bool = False,
) -> Finished:
    """Encodes the weights of `plan`, cleans up and embeds function bodies. Changes `model`.

    `codings` are those of weights whose parameters `plan` holds. `compact` chains take fewer bytes
    (`passes.CompactChains`), which `encoded` does not know.
    """
    from passes.clean_up import CleanUp
    from passes.compact_chains import CompactChains
    from passes.embed_functions import EmbedFunctions
    from passes.encode_weights import EncodeWeights
    from passes.operators import DOMAIN
    from passes.symbol_requests import PackingLimits

    limits = PackingLimits(lane_steps=layout.lane_steps)
    result = EncodeWeights(plan, codings=codings, limits=limits).call(model)
    if compact:
        CompactChains()(model)
    CleanUp()(model)
    EmbedFunctions(layout.portable)(model)
    functions = sorted(name for domain, name, *_ in model.functions if domain == DOMAIN)
    return Finished(model, list(result.encoded), result.shared_bytes, list(result.notes), functions)
