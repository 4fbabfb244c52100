# SPDX-License-Identifier: Apache-2.0
"""toolkit.DecodeAdaptive(blob uint16 [w]) -> int16 [n] in standard operators (FORMAT.md 3).

One Scan step per symbol. The scan carries, for every pair of classes, the running sums of the
weights F of FORMAT.md 3.3; they are linear in the counts: one addition keeps them up to date.
"""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from passes.function_bodies.body_builder import BOOL, INT16, INT64, BodyBuilder
from passes.function_bodies.packed_fields import (
    BODY,
    fields,
    num_packed_words,
    power,
    signed,
    split,
    unpack,
)

SECONDS_PER_SYMBOL = 35e-6
SECONDS_PER_COUNT = 2e-9


@dataclass
class _Header:
    """Names of the fields of FORMAT.md 3.1, int64 vectors of one element (weights: of three)."""

    n: str
    tokens: str
    centre: str
    slope: str
    peak: str
    gain: str
    first: str
    curvature: str
    reach: str
    low_bits: str
    has_context: str
    signed: str
    weights: str
    t1: str
    t2: str
    distance: str
    end: str


def decode_adaptive(opset: int) -> onnx.FunctionProto:
    """The function for models of this opset, 13 or later."""
    body = BodyBuilder(opset, 1)
    (blob,) = body.inputs
    words = body.op("Concat", body.cast(blob, INT64), body.ints(0, 0), axis=0)
    h = _read_header(body, words)
    tokens = _decode_tokens(body, words, h)
    based = body.op("Mul", body.op("Add", tokens, h.first), power(body, h.low_bits))
    low = unpack(body, words, h.end, body.flat(body.range(h.n)), h.low_bits)
    symbols = body.op("Add", based, low)
    return body.function("DecodeAdaptive", [body.cast(symbols, INT16)])


def estimate_stock_seconds(num_symbols: int, num_tokens: int = 256, num_classes: int = 5) -> float:
    """Time of the body on one core of stock ONNX Runtime.

    Args:
        num_tokens: distinct values that the symbols span, at most 256.
        num_classes: 1, 3 or 5 (FORMAT.md 3.3).
    """
    counts = (num_tokens + 1) * num_classes**2
    return 1e-3 + num_symbols * (SECONDS_PER_SYMBOL + SECONDS_PER_COUNT * counts)


def _read_header(body: BodyBuilder, words: str) -> _Header:
    def at(position: str, flag: str) -> str:
        """The word at the position where the flag is 1, else zero."""
        return body.op("Mul", body.op("Gather", words, body.op("Mul", position, flag)), flag)

    def plus(*terms: str) -> str:
        total = terms[0]
        for term in terms[1:]:
            total = body.op("Add", total, term)
        return total

    where = [BODY, BODY + 1, BODY + 1, *[BODY + 2] * 5]
    parts = [(0, 16), (0, 8), (8, 8), (0, 6), (6, 5), (11, 3), (14, 1), (15, 1)]
    head = body.op("Gather", words, body.ints(*where))
    n_low, last, centre, slope, peak, gain, has_shape, has_context = fields(
        body, head, parts, [1] * 8
    )
    one = body.ints(1)
    start = body.ints(BODY + 3)
    shape = at(start, has_shape)
    parts = [(0, 6), (6, 4), (10, 4), (14, 1), (15, 1)]
    curvature, reach, low_bits, has_first, has_high = fields(body, shape, parts, [1] * 5)
    first_at = plus(start, has_shape)
    high_at = plus(first_at, has_first)
    context_at = plus(high_at, has_high)
    stored_first = signed(body, at(first_at, has_first))
    implied_first = body.op("Mul", centre, body.op("Sub", has_first, one))
    n_high = body.op("Mul", at(high_at, has_high), body.ints(65536))

    context = at(context_at, has_context)
    parts = [(0, 1), (1, 3), (4, 3), (7, 3), (10, 1), (11, 1), (12, 2), (14, 2)]
    is_signed, codes, has_distance, has_thresholds, t1, t2 = fields(
        body, context, parts, [1, 3, 1, 1, 1, 1]
    )
    thresholds_at = plus(context_at, has_context)
    distance_at = plus(thresholds_at, has_thresholds)
    thresholds = at(thresholds_at, has_thresholds)
    flag = body.cast(has_thresholds, BOOL)
    long_t1, long_t2 = fields(body, thresholds, [(0, 8), (8, 8)], [1, 1])
    short_t1 = plus(t1, one)
    distance = at(distance_at, has_distance)
    return _Header(
        # A damaged file must not ask for any amount of memory.
        n=body.op("Min", plus(n_low, n_high), body.ints(2**20)),
        tokens=plus(last, one),
        centre=centre,
        slope=slope,
        peak=body.op("Sub", peak, body.ints(16)),
        gain=gain,
        first=plus(stored_first, implied_first),
        curvature=curvature,
        reach=reach,
        low_bits=low_bits,
        has_context=has_context,
        signed=is_signed,
        weights=body.op("Div", power(body, codes), body.ints(2)),
        t1=body.op("Where", flag, long_t1, short_t1),
        t2=body.op("Where", flag, long_t2, plus(short_t1, t2)),
        distance=body.op("Max", distance, one),
        end=plus(distance_at, has_distance),
    )


def _prior_sums(body: BodyBuilder, h: _Header, steps: str) -> str:
    """Sums of the prior (FORMAT.md 3.2) below each token and over all, [tokens + 1]."""
    zero, four = body.ints(0), body.ints(4)
    linear = body.op("Mul", body.op("Mul", h.slope, h.slope), body.ints(64))
    square = body.op("Mul", body.op("Mul", h.curvature, h.curvature), steps)
    falls = body.op("Div", body.op("Mul", body.op("Add", linear, square), steps), body.ints(4096))
    peak = body.op("Mul", h.peak, four)
    beside = body.op("Sub", falls, body.op("Min", peak, zero))
    is_centre = body.op("Less", steps, zero)
    rarity = body.op("Where", is_centre, body.op("Max", peak, zero), beside)
    u = body.op("Sub", body.ints(127), body.op("Min", rarity, body.ints(127)))
    eight = body.ints(8)
    eighths = body.ints(65536, 71468, 77936, 84990, 92682, 101070, 110218, 120194)
    mantissa = body.op("Gather", eighths, body.op("Mod", u, eight))
    mass = body.op("Mul", mantissa, power(body, body.op("Div", u, eight)))
    scaled = body.op("Mul", mass, body.ints(4096))
    share = body.op("Div", scaled, body.op("ReduceSum", mass))
    prior = body.op("Add", share, body.ints(1))
    return body.op("CumSum", body.op("Concat", body.ints(0), prior, axis=0), body.ints(0))


def _observation_sums(body: BodyBuilder, h: _Header) -> str:
    """Row s + 1: the running sums of what token s adds to the counts, [tokens + 1, tokens + 1]."""
    index = body.flat(body.range(body.op("Add", h.tokens, body.ints(1))))
    column = body.op("Unsqueeze", index, body.ints(1))
    apart = body.op("Abs", body.op("Sub", column, index))
    near = body.op("Sub", body.op("Add", h.reach, body.ints(1)), apart)
    height = body.op("Max", near, body.ints(0))
    inside = body.op("Mul", height, body.op("Min", index, body.ints(1)))
    double_gain = body.op("Add", h.gain, h.gain)
    return body.op("CumSum", body.op("Mul", inside, power(body, double_gain)), body.ints(1))


def _class_weights(body: BodyBuilder, h: _Header, num_classes: str) -> str:
    """What a token after classes y, z weighs after classes y', z': [c, c, c, c, 1]."""
    index = body.flat(body.range(num_classes))
    same = body.cast(body.op("Equal", body.op("Unsqueeze", index, body.ints(1)), index), INT64)
    same_before = body.op("Unsqueeze", same, body.ints(1, 3, 4))
    same_back = body.op("Unsqueeze", same, body.ints(0, 2, 4))
    alpha, beta, gamma = split(body, h.weights, [1, 1, 1])
    # 1 + α·before + β·back + γ·before·back
    by_back = body.op("Add", alpha, body.op("Mul", gamma, same_back))
    rest = body.op("Add", body.op("Mul", beta, same_back), body.ints(1))
    return body.op("Add", body.op("Mul", same_before, by_back), rest)


def _code_pairs(body: BodyBuilder, words: str, h: _Header) -> str:
    """The code as numbers of 32 bits, then zeros, [n]: no symbol takes more than one."""
    start = body.op("Add", h.end, num_packed_words(body, h.n, h.low_bits))
    code = body.op("Slice", words, start, body.ints(2**31))
    twice = body.op("Add", h.n, h.n)
    zeros = body.op("Expand", body.ints(0), twice)
    padded = body.op("Concat", code, zeros, axis=0)
    pairs = body.op("Reshape", body.op("Slice", padded, body.ints(0), twice), body.ints(-1, 2))
    return body.op(
        "ReduceSum", body.op("Mul", pairs, body.ints(65536, 1)), body.ints(1), keepdims=0
    )


def _decode_tokens(body: BodyBuilder, words: str, h: _Header) -> str:
    """The tokens, int64 [n]."""
    one = body.ints(1)
    offset = body.op("Sub", body.flat(body.range(h.tokens)), h.centre)
    magnitude = body.op("Abs", offset)
    reaches = [
        body.cast(body.op("Less", t, body.op("Add", magnitude, one)), INT64) for t in (h.t1, h.t2)
    ]
    step = body.op("Mul", body.op("Add", *reaches), h.has_context)
    negative = body.cast(body.op("Less", offset, body.ints(0)), INT64)
    two_if_signed = body.op("Add", h.signed, h.signed)
    sign = body.op("Sub", one, body.op("Mul", negative, two_if_signed))
    token_class = body.op("Add", body.op("Mul", step, sign), two_if_signed)
    outer = body.op("Add", h.has_context, h.signed)
    num_classes = body.op("Add", body.op("Add", outer, outer), one)

    weights = _class_weights(body, h, num_classes)
    all_weights = body.op("ReduceSum", weights, body.ints(2, 3), keepdims=0)
    steps = body.op("Sub", magnitude, one)
    sums = body.op("Mul", all_weights, _prior_sums(body, h, steps))
    observations = _observation_sums(body, h)
    pairs = _code_pairs(body, words, h)
    history = body.op("Expand", body.op("Gather", token_class, h.centre), h.distance)
    # Index 0 of what a token looks up is left free: the scan counts tokens from one.
    classes = body.op("Concat", body.ints(0), token_class, axis=0)

    unused, size, code, at, table, past = (body.name() for _ in range(6))
    zero, shift, end = body.ints(0), body.ints(2**32), body.ints(2**31)
    body.open_graph()
    short = body.op("Less", size, end)
    word = body.op("Gather", pairs, at)
    next_at = body.op("Add", at, body.cast(short, INT64))
    size_1 = body.op("Where", short, body.op("Mul", size, shift), size)
    code_1 = body.op("Where", short, body.op("Add", body.op("Mul", code, shift), word), code)
    pair = body.op("Gather", past, body.ints(-1, 0))
    row = body.op("GatherND", table, pair)
    unit = body.op("Div", size_1, body.op("Gather", row, body.ints(-1)))
    bounds = body.op("Mul", row, unit)
    below = body.op("LessOrEqual", bounds, code_1)
    token_1 = body.op("ReduceSum", body.cast(below, INT64))
    low = body.op("Gather", bounds, body.op("Sub", token_1, one))
    high = body.op("Gather", bounds, token_1)
    next_code = body.op("Sub", code_1, low)
    next_size = body.op("Sub", high, low)
    weight = body.op("GatherND", weights, pair)
    seen = body.op("Mul", weight, body.op("Gather", observations, token_1))
    next_table = body.op("Add", table, seen)
    kept = body.slice(past, one, end)
    next_past = body.op("Concat", kept, body.op("Gather", classes, token_1), axis=0)
    carried = [(name, INT64) for name in (size, code, at, table, past)]
    results = [next_size, next_code, next_at, next_table, next_past, token_1]
    ranks = [(INT64, rank) for rank in (1, 1, 1, 3, 1, 1)]
    graph = body.close_graph(results, [*carried, (unused, INT64)], ranks)
    start = (one, zero, zero, sums, history)
    *_, tokens = body.ops("Scan", 6, *start, pairs, num_scan_inputs=1, body=graph)
    return body.op("Sub", body.flat(tokens), one)
