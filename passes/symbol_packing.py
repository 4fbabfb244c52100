# SPDX-License-Identifier: Apache-2.0
"""Stores the symbols of many tensors in as few blobs as possible and takes each tensor out
again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import onnx_ir as ir

from passes import operators
from passes.chain_builder import Attributes, ChainBuilder
from passes.errors import SettingsError
from passes.pack_zero_runs import (
    NODE_BYTES,
    add_runs,
    add_stream,
    encode_runs,
    encode_stream,
    ideal_bytes,
    merged,
    payload,
)
from passes.schemes.entropy import entropy_bits
from passes.select_weights import folded_view
from passes.settings import Coding
from passes.symbol_requests import PackedSymbols, PackingLimits, SymbolRequest
from runtime.errors import CodecError
from runtime.small import MAX_SYMBOLS
from runtime.wide import WideReader, encode_wide, short_rows

_MOST_ADAPTIVE = 1 << 20  # symbols of one blob (FORMAT.md 3)

__all__ = ["PackedSymbols", "PackingLimits", "SymbolRequest", "pack_symbols"]


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
                by_coder.setdefault(_first_choice(request, limits), []).append(index)
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


def _first_choice(request: SymbolRequest, limits: PackingLimits) -> str:
    """The coder that is asked for; ``small`` for a small tensor that may share a blob."""
    if request.coder != "auto":
        return request.coder
    if request.symbols.size <= limits.small:
        return "small"
    ideal, narrow = ideal_bytes(request.symbols, limits), request.symbols.dtype == np.int8
    if ideal is None or (narrow and ideal >= entropy_bits(request.symbols) / 8):
        return "wide"  # whose int8 symbols hardly ever take more than their entropy
    wide = encode_wide([padded(request.symbols, request.view)]).nbytes
    if ideal >= wide:
        return "wide"
    _, *blobs = encode_runs(request.symbols, request.coding, limits)
    return "zero_run" if sum(b.nbytes for b in blobs) + NODE_BYTES < wide else "wide"


def _choose_small(requests: Sequence[SymbolRequest], limits: PackingLimits) -> str:
    """The smallest way to store small tensors: in the wide segment, packed as one tensor, small
    coder, raw."""
    flat = _concatenated(requests)
    sizes = {
        "wide": 2 * encode_wide([padded(r.symbols, r.view) for r in requests]).size,
        "packed": 2 * encode_wide([padded(flat, folded_view(flat.size))]).size,
        "together": 2 * encode_stream(flat, "auto", limits).size,
        "raw": flat.nbytes,
        "zero_run": NODE_BYTES
        + sum(blob.nbytes for blob in encode_runs(flat, Coding(), limits)[1:]),
    }
    return min(sizes, key=lambda way: sizes[way])


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
    parts = _divided(wanted, limits.segment)
    results = [p for part in parts for p in _wide_segment(part, builder, limits.lane_steps)]
    if folded:
        stream = results.pop()
        results += _ranges(folded, stream.value, "wide", stream.num_bytes, builder)
    return results


def _pack_streams(
    requests: Sequence[SymbolRequest], coder: str, builder: ChainBuilder, limits: PackingLimits
) -> list[PackedSymbols]:
    """As few blobs of a small coder as hold all requests, or an initializer for each where
    ``coder`` is raw."""
    if coder == "raw":
        return [_raw(request, builder) for request in requests]
    if coder == "zero_run":
        return _pack_runs(requests, builder, limits)
    most = _MOST_ADAPTIVE if coder == "adaptive" else MAX_SYMBOLS
    blobs = _divided(requests, most)
    return [p for part in blobs for p in _pack_stream(part, coder, builder, limits)]


def _pack_stream(
    requests: Sequence[SymbolRequest], coder: str, builder: ChainBuilder, limits: PackingLimits
) -> list[PackedSymbols]:
    flat = _concatenated(requests)
    builder.owner = ""
    try:
        words = encode_stream(flat, "auto" if coder == "together" else coder, limits)
    except CodecError as error:
        names = list(dict.fromkeys(request.owner for request in requests))
        others = f" and {len(names) - 1} more" if names[1:] else ""
        raise SettingsError(
            f"weight {names[0]}{others}: coder {coder} cannot hold symbols from {flat.min()} to "
            f"{flat.max()}, or so many of them; take auto or wide"
        ) from error
    number = int(words[1]) >> 8
    value = add_stream(words, builder)
    if flat.dtype == np.int8:
        value = builder.node("Cast", [value], {"to": int(ir.DataType.INT8)})
    return _ranges(requests, value, operators.SMALL_CODER_NAMES[number], words.nbytes, builder)


def _pack_runs(
    requests: Sequence[SymbolRequest], builder: ChainBuilder, limits: PackingLimits
) -> list[PackedSymbols]:
    """Zero runs of each large tensor, and of all small ones with the same options together."""
    groups: dict[object, list[int]] = {}
    for index, request in enumerate(requests):
        alone = request.symbols.size > limits.small
        groups.setdefault(index if alone else request.coding, []).append(index)
    packed: dict[int, PackedSymbols] = {}
    for members in groups.values():
        group = [requests[i] for i in members]
        builder.owner = group[0].owner if len(group) == 1 else ""
        stream, num_bytes = add_runs(merged(group), builder, limits)
        results = _ranges(group, stream, "zero_run", num_bytes, builder, skipped=1)
        packed.update(zip(members, results, strict=True))
    return [packed[i] for i in range(len(requests))]


def _ranges(
    requests: Sequence[SymbolRequest],
    stream: ir.Value,
    coder: str,
    num_bytes: int,
    builder: ChainBuilder,
    skipped: int = 0,
) -> list[PackedSymbols]:
    total = sum(request.symbols.size for request in requests)
    first, results = 0, []
    for request in requests:
        builder.owner = request.owner
        attributes: Attributes = {"first": first + skipped, "shape": request.shape}
        value = builder.node(operators.TAKE_RANGE, [stream], attributes, operators.DOMAIN)
        end = first + request.symbols.size
        share = num_bytes * end // total - num_bytes * first // total
        results.append(PackedSymbols(value, coder, share))
        first = end
    return results


def _wide_segment(
    requests: Sequence[SymbolRequest], builder: ChainBuilder, lane_steps: int
) -> list[PackedSymbols]:
    views = [
        request.view if request.trellis else short_rows(request.view, lane_steps)
        for request in requests
    ]
    words = encode_wide(
        [
            padded(request.symbols, request.view).reshape(view)
            for request, view in zip(requests, views, strict=True)
        ],
        trellis=[request.trellis for request in requests],
        steps=lane_steps,
    )
    builder.owner = ""
    blob = payload(words, builder)
    wide16 = requests[0].symbols.dtype == np.int16
    op_type = operators.DECODE_WIDE16 if wide16 else operators.DECODE_WIDE
    matrix = builder.node(op_type, [blob], domain=operators.DOMAIN)
    results, tensors = [], WideReader(words).tensors
    own = [2 * t.code_words + 4 * t.num_lanes + 4 * -(-t.num_lanes // 32) + 20 for t in tensors]
    rest = words.nbytes - sum(own)
    total, done = sum(request.symbols.size for request in requests), 0
    for request, view, tensor, base in zip(requests, views, tensors, own, strict=True):
        builder.owner = request.owner
        rows, length = view[0] * view[1], view[2]
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


def _divided(requests: Sequence[SymbolRequest], most: int) -> Iterable[list[SymbolRequest]]:
    """Requests in order, up to ``most`` symbols together where one alone has no more."""
    part: list[SymbolRequest] = []
    size = 0
    for request in requests:
        if part and size + request.symbols.size > most:
            yield part
            part, size = [], 0
        part.append(request)
        size += request.symbols.size
    if part:
        yield part


def _raw(request: SymbolRequest, builder: ChainBuilder) -> PackedSymbols:
    builder.owner = request.owner
    value = payload(np.ascontiguousarray(request.symbols).reshape(request.shape), builder)
    return PackedSymbols(value, "raw", request.symbols.nbytes)


def padded(symbols: np.ndarray, view: tuple[int, int, int]) -> np.ndarray:
    """``symbols`` as an array of shape ``view``, zeros appended where it has more elements."""
    flat = np.ascontiguousarray(symbols).reshape(-1)
    size = view[0] * view[1] * view[2]
    if flat.size < size:
        flat = np.concatenate((flat, np.zeros(size - flat.size, flat.dtype)))
    return flat.reshape(view)


def _concatenated(requests: Sequence[SymbolRequest]) -> np.ndarray:
    return np.concatenate([np.ascontiguousarray(r.symbols).reshape(-1) for r in requests])
