# SPDX-License-Identifier: Apache-2.0
"""Stores symbols as zero runs: two streams, and standard operators that put them together.

differences -> DecodeHuffman -> Cast -> CumSum: the indices, plus 1; values -> DecodeHuffman. Both
go into a ScatterElements over as many zeros as there are symbols, and one more at index 0, which
the TakeRange behind it leaves out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import numpy as np
import onnx_ir as ir

from passes import operators
from passes.chain_builder import ChainBuilder
from passes.errors import SettingsError
from passes.schemes.entropy import entropy_bits
from passes.settings import Coding, StreamCoder
from passes.symbol_requests import PackingLimits, SymbolRequest
from passes.zero_runs import Gaps, ZeroRuns, split_runs
from runtime.errors import CodecError
from runtime.small import SmallCoder, encode_small

# What the two blobs' headers and the nodes take beside what a wide tensor takes.
NODE_BYTES = 190
_MAX_DENSITY = 0.3  # of zero runs that are chosen unasked
_HUFFMAN_SPAN = 4096  # values that the symbols of a Huffman blob may span


def encode_stream(
    symbols: np.ndarray, coder: StreamCoder | str, limits: PackingLimits
) -> np.ndarray:
    """One blob of a small coder; ``auto`` takes the smallest, without the sequential one where that
    decodes too slowly."""
    if coder != "auto":
        return encode_small(symbols, coder=cast(SmallCoder, coder))
    if symbols.size <= limits.sequential:
        return encode_small(symbols)
    blobs = [encode_small(symbols, coder="fixed")]
    if int(symbols.max()) - int(symbols.min()) < _HUFFMAN_SPAN:
        blobs.append(encode_small(symbols, coder="huffman"))
    return min(blobs, key=lambda blob: blob.size)


def encode_runs(
    symbols: np.ndarray, coding: Coding, limits: PackingLimits
) -> tuple[ZeroRuns, np.ndarray, np.ndarray]:
    """The zero runs of int8 or int16 ``symbols`` and the blobs of their differences and values.

    Raises SettingsError where a stream is longer, or its symbols span more, than its coder allows.
    """
    gaps = Gaps.of(symbols)
    run_bits = coding.run_bits
    if run_bits is None:
        mean = entropy_bits(symbols.reshape(-1)[gaps.places]) / max(gaps.places.size, 1)
        run_bits = gaps.best_run_bits(mean + 1)
    runs = split_runs(symbols, gaps, run_bits)
    try:
        differences = encode_stream(runs.differences, coding.run_coder, limits)
        return runs, differences, encode_stream(runs.values, coding.value_coder, limits)
    except CodecError as error:
        raise SettingsError(f"zero runs of {gaps.size} symbols: {error}") from error


def ideal_bytes(symbols: np.ndarray, limits: PackingLimits) -> float | None:
    """Bytes of zero runs of ``symbols`` with ideal codes, nodes included; None where they are not
    sparse, or so many that decoding would take long."""
    gaps = Gaps.of_sparse(symbols, _MAX_DENSITY)
    if gaps is None:
        return None
    values = entropy_bits(symbols.reshape(-1)[gaps.places])
    mean = values / max(gaps.places.size, 1)
    run_bits = gaps.best_run_bits(mean + 1)
    if gaps.entries(run_bits) > limits.runs:
        return None
    return (values + gaps.run_cost(run_bits, mean)) / 8 + NODE_BYTES


def add_runs(
    request: SymbolRequest, builder: ChainBuilder, limits: PackingLimits
) -> tuple[ir.Value, int]:
    """The nodes that decode a request's symbols behind one more symbol, and the blobs' bytes."""
    try:
        runs, differences, values = encode_runs(request.symbols, request.coding, limits)
    except SettingsError as error:
        raise SettingsError(f"{request.owner}: {error}") from error
    decoded = add_stream(values, builder)
    if request.symbols.dtype == np.int8:
        decoded = builder.node("Cast", [decoded], {"to": int(ir.DataType.INT8)})
    fill = np.array(runs.fill, request.symbols.dtype)
    ends = running_sum(add_stream(differences, builder), builder)
    stream = add_scatter(builder, fill, runs.size + 1, ends, decoded)
    return stream, differences.nbytes + values.nbytes


def running_sum(differences: ir.Value, builder: ChainBuilder) -> ir.Value:
    """The indices, plus 1, of entries with these differences, int32."""
    differences = builder.node("Cast", [differences], {"to": int(ir.DataType.INT32)})
    return builder.node("CumSum", [differences, builder.initializer(np.array(0, np.int32))])


def add_scatter(
    builder: ChainBuilder, fill: np.ndarray, size: int, places: ir.Value, values: ir.Value
) -> ir.Value:
    """``values`` at their places among ``size`` times ``fill`` (a scalar of their type)."""
    shape = builder.initializer(np.array([size], np.int64))
    zeros = builder.node("Expand", [builder.initializer(fill), shape])
    return builder.node("ScatterElements", [zeros, places, values])


def add_stream(words: np.ndarray, builder: ChainBuilder) -> ir.Value:
    """The node that decodes a blob of a small coder, int16."""
    number = int(words[1]) >> 8
    blob = payload(words, builder)
    return builder.node(operators.SMALL_DECODERS[number], [blob], domain=operators.DOMAIN)


def payload(array: np.ndarray, builder: ChainBuilder) -> ir.Value:
    """An initializer whose data is counted as code bytes of weights, so here only its header is."""
    before = builder.bytes_of[builder.owner]
    value = builder.initializer(array)
    builder.bytes_of[builder.owner] = before + 12
    return value


def merged(requests: Sequence[SymbolRequest]) -> SymbolRequest:
    """One request for the symbols of several, one after the other."""
    flat = np.concatenate([np.ascontiguousarray(r.symbols).reshape(-1) for r in requests])
    first = requests[0]
    return SymbolRequest(
        first.owner, flat, (1, 1, flat.size), (flat.size,), first.coder, first.coding
    )
