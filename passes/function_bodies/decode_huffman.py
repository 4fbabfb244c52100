# SPDX-License-Identifier: Apache-2.0
"""toolkit.DecodeHuffman(blob uint16 [w]) -> int16 [n] in standard operators (FORMAT.md 4).

All bit positions are looked up at once. The positions at which codes really start are then found
by pointer doubling: from the first 2^k starts and the jump over 2^k codes come the next 2^k.
"""

from __future__ import annotations

import onnx
from onnx import helper

from passes.function_bodies.body_builder import BOOL, INT16, INT32, INT64, BodyBuilder
from passes.function_bodies.packed_fields import (
    BODY,
    POWERS,
    fields,
    num_packed_words,
    power,
    signed,
    unpack,
)

MAX_LENGTH = 12
SLOTS = 2**MAX_LENGTH


def decode_huffman(opset: int) -> onnx.FunctionProto:
    """The function for models of this opset, 13 or later."""
    body = BodyBuilder(opset, 1)
    (blob,) = body.inputs
    words = body.op("Concat", body.cast(blob, INT64), body.ints(0, 0), axis=0)
    where = [BODY, BODY + 1, BODY + 1, BODY + 1, BODY + 2, BODY + 3]
    parts = [(0, 16), (0, 8), (8, 4), (12, 4), (0, 16), (0, 16)]
    head = body.op("Gather", words, body.ints(*where))
    low, high, width, start, first, alphabet = fields(body, head, parts, [1] * 6)
    n = body.op("Add", low, body.op("Mul", high, body.ints(65536)))
    symbol_of_slot, length_of_slot = _decoding_table(body, words, width, start, alphabet)

    num_length_words = num_packed_words(body, alphabet, width)
    code = body.op("Add", num_length_words, body.ints(BODY + 4))
    slots = _slot_of_every_bit(body, words, code)
    last = body.op("Sub", body.op("Shape", slots), body.ints(1))
    lengths = body.op("Gather", length_of_slot, slots)
    behind = body.op("Add", body.flat(body.range(body.op("Shape", slots))), lengths)
    jump = body.cast(body.op("Min", behind, last), INT32)
    starts = _chain(body, jump, n)
    picked = body.op("Gather", slots, starts)
    symbols = body.op("Add", body.op("Gather", symbol_of_slot, picked), signed(body, first))
    return body.function("DecodeHuffman", [body.cast(symbols, INT16)])


def _decoding_table(
    body: BodyBuilder, words: str, width: str, start: str, alphabet: str
) -> tuple[str, str]:
    """Symbol and code length of each number of 12 bits, both int64 [4097].

    Symbols without a code count as of length 13, behind all others; of that length is also an only
    symbol, which so takes slot 0. 13 modulo 13 is their true length.
    """
    index = body.flat(body.range(alphabet))
    steps = unpack(body, words, body.ints(BODY + 4), index, width)
    bias = body.op("Sub", body.op("Div", power(body, width), body.ints(2)), body.ints(1))
    sums = body.op("CumSum", body.op("Sub", steps, bias), body.ints(0))
    lengths = body.op("Mod", body.op("Add", sums, start), body.ints(16))
    absent = body.cast(body.op("Equal", lengths, body.ints(0)), INT64)
    ranked = body.op("Add", lengths, body.op("Mul", absent, body.ints(13)))
    keys = body.op("Add", body.op("Mul", ranked, body.ints(SLOTS)), index)
    sorted_keys, _ = body.ops("TopK", 2, keys, alphabet, largest=0)
    symbols = body.op("Mod", sorted_keys, body.ints(SLOTS))
    sorted_lengths = body.op("Div", sorted_keys, body.ints(SLOTS))
    shares = body.op("Div", body.ints(SLOTS), power(body, sorted_lengths))
    first_slot = body.op("CumSum", shares, body.ints(0), exclusive=1)
    clipped = body.op("Min", first_slot, body.ints(SLOTS))
    zeros = body.op("ConstantOfShape", body.ints(SLOTS + 1), value=_zero())
    ones = body.op("Add", body.op("Mul", clipped, body.ints(0)), body.ints(1))
    marks = body.op("ScatterElements", zeros, clipped, ones)
    rank = body.op("Sub", body.op("CumSum", marks, body.ints(0)), body.ints(1))
    true_lengths = body.op("Mod", sorted_lengths, body.ints(13))
    return body.op("Gather", symbols, rank), body.op("Gather", true_lengths, rank)


def _zero() -> onnx.TensorProto:
    return helper.make_tensor("", INT64, [1], [0])


def _slot_of_every_bit(body: BodyBuilder, words: str, code: str) -> str:
    """The 12 bits from each bit of the code on, int64 [16 · (code words + 1)]."""
    end = body.ints(2**31)
    stream = body.op("Slice", words, code, end)
    this = body.op("Slice", stream, body.ints(0), body.ints(-1))
    following = body.op("Slice", stream, body.ints(1), end)
    window = body.op("Add", body.op("Mul", this, body.ints(65536)), following)
    column = body.op("Unsqueeze", window, body.ints(1))
    shifted = body.op("Div", column, body.ints(*(2 ** (20 - bit) for bit in range(16))))
    slots = body.op("Mod", shifted, body.ints(SLOTS))
    return body.op("Reshape", slots, body.ints(-1))


def _chain(body: BodyBuilder, jump: str, n: str) -> str:
    """The positions 0, jump(0), jump(jump(0)), … of n codes, int32 [n]."""
    short = body.cast(body.op("Less", body.ints(*POWERS), n), INT64)
    rounds = body.op("ReduceSum", short)
    zero = body.cast(body.ints(0), INT32)
    count, condition, starts, jumps = (body.name() for _ in range(4))
    body.open_graph()
    further = body.op("Gather", jumps, starts)
    more = body.op("Concat", starts, further, axis=0)
    farther = body.op("Gather", jumps, jumps)
    go_on = body.op("Identity", condition)
    inputs = [(count, INT64), (condition, BOOL), (starts, INT32), (jumps, INT32)]
    graph = body.close_graph([go_on, more, farther], inputs, scalars=2)
    chain, _ = body.ops("Loop", 2, rounds, "", zero, jump, body=graph)
    return body.slice(chain, body.ints(0), n)


def estimate_stock_seconds(num_symbols: int, num_code_bits: int) -> float:
    """Time of the body on one core of stock ONNX Runtime."""
    rounds = max(num_symbols, 2).bit_length()
    return 5e-4 + num_code_bits * (100e-9 + 5e-9 * rounds)
