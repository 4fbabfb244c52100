# SPDX-License-Identifier: Apache-2.0
"""Stores the symbols of many tensors in as few blobs as possible and takes each tensor out
again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import onnx_ir as ir

from passes import operators
from passes.chain_builder import Attributes, ChainBuilder
from passes.select_weights import folded_view
from passes.settings import Coder
from runtime.small import SmallCoder, encode_small
from runtime.wide import WideReader, encode_wide

_HUFFMAN_SPAN = 4096  # values that the symbols of a Huffman blob may span


@dataclass(frozen=True, eq=False)
class SymbolRequest:
    """Symbols that a chain needs.

    Attributes:
        owner: The weight they belong to.
        symbols: int8 or int16 in the order they are coded in; any shape.
        view: The coder's three dimensions; their product is at least the number of symbols.
        shape: Dimensions of the value that the chain continues with.
        coder: ``auto`` takes the smallest.
        trellis: Symbols of dependent quantisation, which the decoder turns into integers; only the
            wide coder knows them.
    """

    owner: str
    symbols: np.ndarray
    view: tuple[int, int, int]
    shape: tuple[int, ...]
    coder: Coder
    trellis: bool = False


@dataclass(frozen=True, eq=False)
class PackedSymbols:
    """What became of a request: its value in the graph, its coder, and its share of the blob in
    bytes."""

    value: ir.Value
    coder: str
    num_bytes: int


@dataclass(frozen=True)
class PackingLimits:
    """Numbers of symbols: a tensor up to ``small`` may share a blob with others; a blob up to
    ``sequential`` may use a coder that decodes one symbol after the other; a segment has up to
    ``segment``."""

    small: int = 4096
    sequential: int = 4096
    segment: int = 64 << 20


def pack_symbols(
    requests: Sequence[SymbolRequest], builder: ChainBuilder, limits: PackingLimits
) -> list[PackedSymbols]:
    """Encodes all requests and builds the nodes down to one value each, in the order of the
    requests."""
    packed: dict[int, PackedSymbols] = {}
    for kind in (np.int8, np.int16):
        by_coder: dict[str, list[int]] = {}
        for index, request in enumerate(requests):
            if request.symbols.dtype == kind:
                small = request.coder == "auto" and request.symbols.size <= limits.small
                given: str = "wide" if request.coder == "auto" else request.coder
                by_coder.setdefault("small" if small else given, []).append(index)
        shared = by_coder.pop("small", [])
        if shared:
            choice = _choose_small([requests[i] for i in shared], limits)
            by_coder[choice] = sorted(by_coder.get(choice, []) + shared)
        wide, folded = by_coder.pop("wide", []), by_coder.pop("packed", [])
        results = _pack_wide(
            [requests[i] for i in wide], [requests[i] for i in folded], builder, limits
        )
        packed.update(zip(wide + folded, results, strict=True))
        for coder, indices in by_coder.items():
            results = _pack_streams([requests[i] for i in indices], coder, builder, limits)
            packed.update(zip(indices, results, strict=True))
    builder.owner = ""
    return [packed[i] for i in range(len(requests))]


def _choose_small(requests: Sequence[SymbolRequest], limits: PackingLimits) -> str:
    """The smallest way to store small tensors: in the wide segment, packed as one tensor, small
    coder, raw."""
    flat = _concatenated(requests)
    sizes = {
        "wide": 2 * encode_wide([padded(r.symbols, r.view) for r in requests]).size,
        "packed": 2 * encode_wide([padded(flat, folded_view(flat.size))]).size,
        "together": 2 * _encode_together(flat, limits).size,
        "raw": flat.nbytes,
    }
    return min(sizes, key=lambda way: sizes[way])


def _encode_together(flat: np.ndarray, limits: PackingLimits) -> np.ndarray:
    """The smallest blob of small coders, without the sequential one where that decodes too
    slowly."""
    if flat.size <= limits.sequential:
        return encode_small(flat)
    blobs = [encode_small(flat, coder="fixed")]
    if int(flat.max()) - int(flat.min()) < _HUFFMAN_SPAN:
        blobs.append(encode_small(flat, coder="huffman"))
    return min(blobs, key=lambda blob: blob.size)


def _pack_wide(
    own: Sequence[SymbolRequest],
    folded: Sequence[SymbolRequest],
    builder: ChainBuilder,
    limits: PackingLimits,
) -> list[PackedSymbols]:
    """Wide segments: a tensor for each of ``own``, and one more that holds all of ``folded``."""
    wanted = list(own)
    if folded:
        flat = _concatenated(folded)
        wanted.append(SymbolRequest("", flat, folded_view(flat.size), (flat.size,), "wide"))
    results = [p for part in _segments(wanted, limits) for p in _wide_segment(part, builder)]
    if folded:
        stream = results.pop()
        results += _ranges(folded, stream.value, "wide", stream.num_bytes, builder)
    return results


def _pack_streams(
    requests: Sequence[SymbolRequest], coder: str, builder: ChainBuilder, limits: PackingLimits
) -> list[PackedSymbols]:
    """One blob of a small coder for all requests, or an initializer for each where ``coder`` is
    raw."""
    if coder == "raw":
        return [_raw(request, builder) for request in requests]
    flat = _concatenated(requests)
    builder.owner = ""
    if coder == "together":
        words = _encode_together(flat, limits)
    else:
        words = encode_small(flat, coder=cast(SmallCoder, coder))
    number = int(words[1]) >> 8
    blob = _payload(words, builder)
    value = builder.node(operators.SMALL_DECODERS[number], [blob], domain=operators.DOMAIN)
    if flat.dtype == np.int8:
        value = builder.node("Cast", [value], {"to": int(ir.DataType.INT8)})
    return _ranges(requests, value, operators.SMALL_CODER_NAMES[number], words.nbytes, builder)


def _ranges(
    requests: Sequence[SymbolRequest],
    stream: ir.Value,
    coder: str,
    num_bytes: int,
    builder: ChainBuilder,
) -> list[PackedSymbols]:
    total = sum(request.symbols.size for request in requests)
    first, results = 0, []
    for request in requests:
        builder.owner = request.owner
        attributes: Attributes = {"first": first, "shape": request.shape}
        value = builder.node(operators.TAKE_RANGE, [stream], attributes, operators.DOMAIN)
        end = first + request.symbols.size
        share = num_bytes * end // total - num_bytes * first // total
        results.append(PackedSymbols(value, coder, share))
        first = end
    return results


def _wide_segment(requests: Sequence[SymbolRequest], builder: ChainBuilder) -> list[PackedSymbols]:
    words = encode_wide(
        [padded(request.symbols, request.view) for request in requests],
        trellis=[request.trellis for request in requests],
    )
    builder.owner = ""
    blob = _payload(words, builder)
    wide16 = requests[0].symbols.dtype == np.int16
    op_type = operators.DECODE_WIDE16 if wide16 else operators.DECODE_WIDE
    matrix = builder.node(op_type, [blob], domain=operators.DOMAIN)
    results, tensors = [], WideReader(words).tensors
    own = [2 * t.code_words + 4 * t.num_lanes + 4 * -(-t.num_lanes // 32) + 20 for t in tensors]
    rest = words.nbytes - sum(own)
    total, done = sum(request.symbols.size for request in requests), 0
    for request, tensor, base in zip(requests, tensors, own, strict=True):
        builder.owner = request.owner
        rows, length = request.view[0] * request.view[1], request.view[2]
        attributes: Attributes = {
            "lane": int(tensor.first_lane),
            "lanes": int(tensor.num_lanes),
            "steps": int(min(tensor.rows_per_lane, rows) * length),
            "shape": request.shape,
        }
        value = builder.node(operators.TAKE_TENSOR, [matrix], attributes, operators.DOMAIN)
        end = done + request.symbols.size
        share = rest * end // total - rest * done // total
        results.append(PackedSymbols(value, "wide", int(base + share)))
        done = end
    return results


def _segments(
    requests: Sequence[SymbolRequest], limits: PackingLimits
) -> Iterable[list[SymbolRequest]]:
    part: list[SymbolRequest] = []
    size = 0
    for request in requests:
        if part and size + request.symbols.size > limits.segment:
            yield part
            part, size = [], 0
        part.append(request)
        size += request.symbols.size
    if part:
        yield part


def _raw(request: SymbolRequest, builder: ChainBuilder) -> PackedSymbols:
    builder.owner = request.owner
    value = _payload(np.ascontiguousarray(request.symbols).reshape(request.shape), builder)
    return PackedSymbols(value, "raw", request.symbols.nbytes)


def _payload(array: np.ndarray, builder: ChainBuilder) -> ir.Value:
    """An initializer whose data is counted as code bytes of weights, so here only its header is."""
    before = builder.bytes_of[builder.owner]
    value = builder.initializer(array)
    builder.bytes_of[builder.owner] = before + 12
    return value


def padded(symbols: np.ndarray, view: tuple[int, int, int]) -> np.ndarray:
    """``symbols`` as an array of shape ``view``, zeros appended where it has more elements."""
    flat = np.ascontiguousarray(symbols).reshape(-1)
    size = view[0] * view[1] * view[2]
    if flat.size < size:
        flat = np.concatenate((flat, np.zeros(size - flat.size, flat.dtype)))
    return flat.reshape(view)


def _concatenated(requests: Sequence[SymbolRequest]) -> np.ndarray:
    return np.concatenate([np.ascontiguousarray(r.symbols).reshape(-1) for r in requests])
