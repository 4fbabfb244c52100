# SPDX-License-Identifier: Apache-2.0
"""Replaces weights by compressed symbols and the nodes that decode them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir

from passes import operators
from passes.chain_builder import ChainBuilder
from passes.chains import Chain, chain_of
from passes.errors import ModelError, SchemeError
from passes.fit_weight import fit_weight
from passes.schemes import IntegerParameters, Lossless, Parameters
from passes.schemes import bits as estimated_bits
from passes.select_weights import Weight, select_weights
from passes.settings import Coding, WeightSettings
from passes.store_sparse import sparse_bytes, store_sparse
from passes.symbol_packing import PackingLimits, pack_symbols

# Nodes and headers of one weight: a smaller gain than this is none.
_CHAIN_BYTES = 64
_FUNCTIONS_IR_VERSION = 8


@dataclass(frozen=True)
class EncodedWeight:
    """What one weight became.

    Attributes:
        name, shape, dtype: The weight's; dtype as in ONNX ("FLOAT").
        role, scheme: As selected; "uniform", "codebook" or "lossless".
        coder: How its (first) symbols are stored: wide, adaptive, huffman, fixed, raw, zero_run or
            sparse.
        original_bytes: Bytes of its data before.
        code_bytes: Its share of the blobs.
        side_bytes: Its scales, zero points, codebook, uncoded planes, and nodes.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    role: str
    scheme: str
    coder: str
    num_elements: int
    original_bytes: int
    code_bytes: int
    side_bytes: int

    @property
    def num_bytes(self) -> int:
        """All bytes of the weight in the compressed file."""
        return self.code_bytes + self.side_bytes


@dataclass
class EncodeResult(ir.passes.PassResult):
    """The pass's result: per weight bytes, bytes that weights share (decode nodes), and notes."""

    encoded: tuple[EncodedWeight, ...] = ()
    shared_bytes: int = 0
    notes: tuple[str, ...] = ()


class EncodeWeights(ir.passes.InPlacePass):
    """Replaces initializers of the main graph by decode chains whose last value has the
    initializer's name.

    Rules:
      1. ``plan`` says for each weight (by name) its settings, or parameters fitted already.
      2. int8 symbols share one DecodeWide segment, int16 symbols one DecodeWide16 segment, each
         split where it would hold more than ``limits.segment`` symbols; small tensors share a blob
         of whichever kind is smallest.
      3. Minor tensors without an entry in ``plan`` are quantised with ``minor_relative_step`` where
         it is given.
      4. ``codings`` says how the symbols of a weight are stored, where its settings do not. Coder
         ``sparse`` decodes the weight to a sparse initializer in place of a chain.
      5. float16 weights come from a float16 scale from opset 19 on, else from float32 and a Cast.

    Left alone, with a note: weights that are graph inputs or outputs, that hold NaN (whose bits a
    decoder made of arithmetic would lose), that are empty, or whose chain would not be smaller than
    their data. Infinity under a lossy scheme: coded losslessly, with a note.

    Run LiftWeights first; afterwards CleanUp and, for stock ONNX Runtime, EmbedFunctions.
    """

    def __init__(
        self,
        plan: Mapping[str, WeightSettings | Parameters],
        *,
        codings: Mapping[str, Coding] | None = None,
        minor_relative_step: float | None = None,
        limits: PackingLimits | None = None,
    ) -> None:
        super().__init__()
        self.plan, self.codings = dict(plan), dict(codings or {})
        self.minor_relative_step = minor_relative_step
        self.limits = limits or PackingLimits()

    def call(self, model: ir.Model) -> EncodeResult:
        """Changes ``model`` in place; ModelError for a name in the plan that is no initializer."""
        if model.opset_imports.get("", 13) < 13:
            raise ModelError(f"EncodeWeights needs opset 13 or more, not {model.opset_imports['']}")
        notes: list[str] = []
        builder = ChainBuilder(model)
        sparse: list[EncodedWeight] = []
        chains = self._chains(model, notes, builder.opset, sparse)
        if not chains:
            return EncodeResult(model, bool(sparse), tuple(sparse), notes=tuple(notes))
        wanted = [
            [
                replace(request, coding=self._coding(chain.weight.name))
                for request in chain.requests()
            ]
            for chain in chains
        ]
        packed = iter(pack_symbols([r for part in wanted for r in part], builder, self.limits))
        finished = []
        for chain, part in zip(chains, wanted, strict=True):
            mine = [next(packed) for _ in part]
            builder.owner = chain.weight.name
            finished.append((chain, mine, chain.build(builder, mine)))
        for chain, _, decoded in finished:
            _replace(model.graph, chain.weight, decoded)
        builder.insert(model.graph)
        model.opset_imports[operators.DOMAIN] = operators.DOMAIN_VERSION
        model.ir_version = max(model.ir_version, _FUNCTIONS_IR_VERSION)
        encoded = tuple(
            EncodedWeight(
                name=chain.weight.name,
                shape=chain.weight.shape,
                dtype=chain.weight.dtype.name,
                role=chain.weight.role,
                scheme=chain.parameters.name,
                coder=mine[0].coder,
                num_elements=chain.weight.num_elements,
                original_bytes=chain.weight.num_bytes,
                code_bytes=sum(p.num_bytes for p in mine),
                side_bytes=builder.bytes_of[chain.weight.name],
            )
            for chain, mine, _ in finished
        )
        return EncodeResult(model, True, (*encoded, *sparse), builder.bytes_of[""], tuple(notes))

    def _coding(self, name: str) -> Coding:
        entry = self.plan.get(name)
        if name in self.codings or not isinstance(entry, WeightSettings):
            return self.codings.get(name, Coding())
        return entry.coding

    def _chains(
        self, model: ir.Model, notes: list[str], opset: int, sparse: list[EncodedWeight]
    ) -> list[Chain[Any]]:
        """The chains of the plan; what becomes a sparse initializer is added to ``sparse``."""
        weights = {weight.name: weight for weight in select_weights(model)}
        for name in self.plan:
            if name not in model.graph.initializers:
                raise ModelError(f"weight {name!r}: the model has no such initializer")
            if name not in weights:
                notes.append(
                    f"{name}: left alone: a graph input or output, unused, or of no suitable type"
                )
        plan = dict(self.plan)
        if self.minor_relative_step is not None:
            settings = WeightSettings(relative_step=self.minor_relative_step)
            for weight in weights.values():
                if weight.role == "minor":
                    plan.setdefault(weight.name, settings)
        chains = []
        for name, weight in weights.items():
            fitted = self._fitted(weight, plan[name], notes) if name in plan else None
            if fitted is None:
                continue
            coder = self._coding(name).coder
            num_bytes: float | None = estimated_bits(fitted) / 8 + _CHAIN_BYTES
            if coder == "sparse":
                num_bytes = sparse_bytes(weight, fitted.decode())
            if num_bytes is None:
                notes.append(f"{name}: left alone: sparse initializers hold floats")
                continue
            if num_bytes >= weight.num_bytes:
                if weight.role != "minor":
                    notes.append(
                        f"{name}: left alone: {weight.num_bytes} bytes would not become fewer"
                    )
                continue
            if coder == "sparse":
                store_sparse(weight, fitted)
                sparse.append(_as_sparse(weight, fitted, int(num_bytes)))
            else:
                chains.append(chain_of(weight, fitted, coder, opset))
        return chains

    def _fitted(
        self, weight: Weight, entry: WeightSettings | Parameters, notes: list[str]
    ) -> Parameters | None:
        if not isinstance(entry, WeightSettings):
            _check_fitted(weight, entry)
            return entry
        if entry.scheme == "keep":
            return None
        array = weight.array()
        if array.dtype.kind not in "iu" and np.isnan(array).any():
            notes.append(f"{weight.name}: kept as it is: it holds NaN")
            return None
        remarks: list[str] = []
        try:
            fitted = fit_weight(array, entry, weight.channel_axis, remarks)
            notes += [f"{weight.name}: {remark}" for remark in remarks]
            return fitted
        except SchemeError as error:
            if array.size == 0 or entry.scheme == "lossless":
                notes.append(f"{weight.name}: left alone: {error}")
                return None
            notes.append(f"{weight.name}: coded losslessly: {error}")
            return Lossless().fit(array)


def _check_fitted(weight: Weight, parameters: Parameters) -> None:
    shape, kind = parameters.shape, weight.dtype.numpy()
    if shape != weight.shape or parameters.dtype != kind:
        raise ModelError(
            f"weight {weight.name!r}: expected parameters for {kind} {weight.shape}, "
            f"found {parameters.dtype} {shape}"
        )
    if isinstance(parameters, IntegerParameters) != (weight.role == "integer"):
        raise ModelError(
            f"weight {weight.name!r}: integer parameters belong to integer weights only"
        )


def _as_sparse(weight: Weight, parameters: Parameters, num_bytes: int) -> EncodedWeight:
    return EncodedWeight(
        name=weight.name,
        shape=weight.shape,
        dtype=weight.dtype.name,
        role=weight.role,
        scheme=parameters.name,
        coder="sparse",
        num_elements=weight.num_elements,
        original_bytes=weight.num_bytes,
        code_bytes=num_bytes,
        side_bytes=0,
    )


def _replace(graph: ir.Graph, weight: Weight, decoded: ir.Value) -> None:
    """Gives ``decoded`` the weight's uses and name and drops the initializer."""
    weight.value.replace_all_uses_with(decoded)
    del graph.initializers[weight.name]
    decoded.name = weight.name
    decoded.meta["weight"] = True
