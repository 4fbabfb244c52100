# SPDX-License-Identifier: Apache-2.0
"""Malformed wide blobs: one for each check of FORMAT.md, and one cut at each field.

Every decoder runs the same corpus: `malformed_blobs()` yields (name, words, expected status name).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from runtime import CodecError
from tests.wide_reference_encoder import (
    NestedPadding,
    TableSet,
    Tensor,
    Words,
    encode_segment,
    frame,
    u32,
    with_checksum,
)
from tests.wide_samples import laplace, laplace16

BODY = 6
FIELDS = {
    "num_tensors": (0, 1),
    "num_sets": (1, 1),
    "flags": (2, 1),
    "num_tables": (3, 1),
    "lanes": (4, 2),
    "blocks": (6, 2),
    "steps": (8, 2),
    "code_word_count": (10, 2),
    "exception_count": (12, 2),
    "class_bytes": (14, 2),
    "table_bytes": (16, 2),
}
_SOUND = NestedPadding()
Case = tuple[str, Words, str]


def field_offsets(words: Words, body: int = BODY) -> dict[str, tuple[int, int]]:
    """First word and number of words of each part of a valid wide blob, in the order of 2.2."""

    def get(name: str) -> int:
        at, size = FIELDS[name]
        return int(words[body + at]) | (int(words[body + at + 1]) << 16 if size == 2 else 0)

    fields = {name: (body + at, size) for name, (at, size) in FIELDS.items()}
    at = body + 18

    def part(name: str, size: int) -> None:
        nonlocal at
        fields[name] = (at, size)
        at += size

    part("tensors", 10 * get("num_tensors"))
    part("sets", get("num_sets"))
    if get("flags") & 2:
        part("inner_words", 2)
        part("inner", int(words[at - 2]) | int(words[at - 1]) << 16)
    else:
        part("class_stream", (get("class_bytes") + 1) // 2)
        part("table_stream", (get("table_bytes") + 1) // 2)
    part("exceptions", 4 * get("exception_count"))
    part("block_lengths", 2 * get("blocks"))
    part("states", 2 * get("lanes"))
    part("code_words", get("code_word_count"))
    return fields


def plain_blob() -> Words:
    """Two 8-bit tensors, K = 5 and K = 1, odd byte strings, three blocks, a short last lane."""
    for seed in range(100):
        tensors = [
            Tensor(laplace((7, 5, 14), 3, seed), class_a=np.arange(7).astype(np.int8) % 3),
            Tensor(laplace((5, 1, 17), 3, 2), rows_per_lane=2, table_set=1),
        ]
        words = encode_segment(tensors, [TableSet(5, 3), TableSet(1, 1)])
        if words[FIELDS["table_bytes"][0] + BODY] % 2:
            return words
    raise ValueError("no sample has a table stream of odd length")


def nested_blob(padding: NestedPadding = _SOUND) -> Words:
    """As plain_blob, nested side information."""
    tensors = [Tensor(laplace((7, 5, 14), 3, 1), class_a=np.arange(7).astype(np.int8) % 3)]
    return encode_segment(tensors, [TableSet(5, 3)], nested_row=6, nested_padding=padding)


def trellis_blob() -> Words:
    """As plain_blob, the first set a trellis set."""
    tensors = [
        Tensor(laplace((7, 5, 14), 3, 1), class_a=np.arange(7).astype(np.int8) % 3),
        Tensor(laplace((5, 1, 17), 3, 2), rows_per_lane=2, table_set=1),
    ]
    return encode_segment(tensors, [TableSet(5, 3, trellis=True), TableSet(1, 1)])


def short_lane_blob() -> Words:
    """Three lanes of two symbols, of which the last has only the first."""
    symbols = np.array([1, 0, 0, 1, 1], np.int8).reshape(5, 1, 1)
    return encode_segment([Tensor(symbols, rows_per_lane=2)], [TableSet(1, 1)])


def wide_blob() -> Words:
    """16-bit symbols with raw low bits and three exceptions; the second lane is the shorter one."""
    symbols = laplace16((3, 1, 12), 40, 3)
    symbols[0, 0, 3], symbols[0, 0, 5], symbols[2, 0, 1] = 5000, -5000, 6000
    return encode_segment([Tensor(symbols, rows_per_lane=2, low_bits=2)], wide=True)


def resized(words: Words) -> Words:
    """The same words with the length and the checksum that belong to them."""
    fixed = words.copy()
    if fixed.size >= BODY:
        fixed[4:6] = u32(fixed.size)
        fixed = with_checksum(fixed)
    return fixed


def patched(words: Words, at: int, *values: int) -> Words:
    """The blob with words replaced from `at` on, and its checksum."""
    changed = words.copy()
    changed[at : at + len(values)] = values
    return with_checksum(changed)


def _frame_cases() -> Iterator[Case]:
    good = plain_blob()
    yield "empty", good[:0], "TK_ERR_TRUNCATED"
    yield "header_cut", good[:5], "TK_ERR_TRUNCATED"
    yield "magic", patched(good, 0, 0x574F), "TK_ERR_MAGIC"
    yield "version_0", patched(good, 1, 0x0100), "TK_ERR_VERSION"
    yield "version_2", patched(good, 1, 0x0102), "TK_ERR_VERSION"
    yield "coder_0", patched(good, 1, 0x0001), "TK_ERR_CODER"
    yield "coder_adaptive", patched(good, 1, 0x0201), "TK_ERR_CODER"
    yield "coder_5", patched(good, 1, 0x0501), "TK_ERR_CODER"
    yield "length_short", patched(good, 4, *u32(good.size - 1)), "TK_ERR_TRUNCATED"
    yield "length_long", patched(good, 4, *u32(good.size + 1)), "TK_ERR_TRUNCATED"
    yield "length_huge", patched(good, 4, 0xFFFF, 0xFFFF), "TK_ERR_TRUNCATED"
    yield "cut_without_repair", good[:-1], "TK_ERR_TRUNCATED"
    for at in (2, 3, BODY, good.size // 2, good.size - 1):
        flipped = good.copy()
        flipped[at] ^= 0x10
        yield f"bit_flip_{at}", flipped, "TK_ERR_CHECKSUM"


def _header_cases() -> Iterator[Case]:
    good = plain_blob()
    fields = field_offsets(good)

    def case(name: str, at: int, *values: int) -> Case:
        return name, patched(good, at, *values), "TK_ERR_HEADER"

    yield case("no_tensors", BODY, 0)
    yield case("no_sets", BODY + 1, 0)
    yield case("17_sets", BODY + 1, 17)
    yield case("unknown_flag", BODY + 2, 8)
    yield case("trellis_flag_without_trellis_sets", BODY + 2, 4)
    yield case("flag_15", BODY + 2, 0x8000)
    yield case("no_tables", BODY + 3, 0)
    yield case("257_tables", BODY + 3, 257)
    yield case("tables_more", BODY + 3, int(good[BODY + 3]) + 1)
    for name in ("lanes", "blocks", "steps", "class_bytes"):
        at = fields[name][0]
        yield case(f"{name}_more", at, int(good[at]) + 1)
        yield case(f"{name}_less", at, int(good[at]) - 1)
        yield case(f"{name}_huge", at, 0xFFFF, 0xFFFF)
    yield case("exceptions_of_8_bit", fields["exception_count"][0], 1)
    at = fields["table_bytes"][0]
    yield case("table_bytes_more", at, int(good[at]) + 1)
    tensor = fields["tensors"][0]
    for index, name in enumerate("abc"):
        yield case(f"{name}_zero", tensor + 2 * index, 0, 0)
        yield case(f"{name}_huge", tensor + 2 * index, 0xFFFF, 0xFFFF)
    yield case("product_of_2_to_the_64", tensor, 0, 1, 0, 0x4000, 0, 0x4000)
    yield case("rows_per_lane_zero", tensor + 6, 0, 0)
    yield case("rows_per_lane_36", tensor + 6, 36, 0)
    yield case("rows_per_lane_huge", tensor + 6, 0xFFFF, 0xFFFF)
    yield case("set_2_of_2", tensor + 8, int(good[tensor + 8]) + 2)
    yield case("tensor_bit_11", tensor + 8, int(good[tensor + 8]) | 0x800)
    yield case("low_bits_of_8_bit", tensor + 8, int(good[tensor + 8]) | 0x1000)
    yield case("class_array_without_bytes", tensor + 8, int(good[tensor + 8]) | 0x200)
    yield case("contexts_0", fields["sets"][0], 0x0300)
    yield case("contexts_2", fields["sets"][0], 0x0302)
    yield case("trellis_set_without_flag", fields["sets"][0], 0x0385)
    yield case("classes_0", fields["sets"][0], 0x0005)
    yield case("classes_65", fields["sets"][0], 0x4105)
    yield case("classes_more_than_bytes", fields["sets"][0], 0x4005)
    for name in ("class_stream", "table_stream"):
        at, size = fields[name]
        yield case(f"{name}_padding", at + size - 1, int(good[at + size - 1]) | 0x100)
    at = fields["block_lengths"][0]
    yield case("block_longer", at, int(good[at]) + 1)
    yield case("block_shorter", at, int(good[at]) - 1)
    yield case("block_huge", at, 0xFFFF, 0xFFFF)
    trellis = trellis_blob()
    at = field_offsets(trellis)["sets"][0]
    for name, word in (("contexts_2", 0x0382), ("classes_0", 0x0085), ("plain", 0x0305)):
        yield f"trellis_{name}", patched(trellis, at, word), "TK_ERR_HEADER"
    wide = wide_blob()
    at = field_offsets(wide)["tensors"][0] + 8
    yield "low_bits_9", patched(wide, at, int(wide[at]) & 0xFFF | 0x9000), "TK_ERR_HEADER"


def _segment_too_large() -> Case:
    """Counts that agree with each other but give L * T of 2^31 and more."""
    tensors = [(1, 1, 2**31 - 1, 1), (1, 1, 1, 1)]
    body = [2, 1, 0, 1, *u32(2), *u32(2), *u32(2**31 - 1), *u32(0), *u32(0), *u32(0), *u32(3)]
    for a, b, c, k in tensors:
        body += [*u32(a), *u32(b), *u32(c), *u32(k), 0, 0]
    body += [0x0101, 0, 0, *u32(0), *u32(0), *u32(65536), *u32(65536)]
    return "segment_too_large", frame(body), "TK_ERR_HEADER"


def _more_symbols_than_bits() -> Case:
    """60,000 symbols and no code word: each takes some of the state's bits, which run out."""
    body = [1, 1, 0, 1, *u32(1), *u32(1), *u32(60_000), *u32(0), *u32(0), *u32(0), *u32(3)]
    body += [*u32(1), *u32(1), *u32(60_000), *u32(1), 0, 0]
    body += [0x0101, 0, 0, *u32(0), *u32(65536)]
    return "more_symbols_than_bits", frame(body), "TK_ERR_STREAM"


def _matrix_of_few_words() -> Iterator[Case]:
    """Two lanes and no code word, which may have 65536 steps; one more is refused."""
    for steps, code in ((65536, "TK_ERR_STREAM"), (65537, "TK_ERR_HEADER")):
        body = [2, 1, 0, 1, *u32(2), *u32(2), *u32(steps), *u32(0), *u32(0), *u32(0), *u32(3)]
        for length in (steps, 1):
            body += [*u32(1), *u32(1), *u32(length), *u32(1), 0, 0]
        body += [0x0101, 0, 0, *u32(0), *u32(0), *u32(65536), *u32(65536)]
        yield f"matrix_of_{steps}_steps", frame(body), code


def _table_cases() -> Iterator[Case]:
    good = plain_blob()
    stream, size = field_offsets(good)["table_stream"]
    raw = good[stream : stream + size].astype("<u2").tobytes()
    num_tables, thresholds = 3 * 5 + 1, 2 * 3
    table_of = thresholds
    firsts = table_of + num_tables
    counts = firsts + num_tables
    codes = counts + num_tables
    table = next(i for i in range(num_tables) if raw[counts + i] > 2)
    begin = codes + sum(raw[counts : counts + table])
    end = begin + raw[counts + table]
    rest = raw.index(127, begin, end)
    other = begin if rest != begin else begin + 1

    def case(name: str, changes: dict[int, int], code: str = "TK_ERR_TABLE") -> Case:
        data = bytearray(raw)
        for at, value in changes.items():
            data[at] = value
        return name, patched(good, stream, *np.frombuffer(bytes(data), "<u2").tolist()), code

    yield case("near_zero", {0: 0})
    yield case("near_above_far", {0: 6})
    yield case("far_zero", {3: 0})
    yield case("table_16_of_16", {table_of + 3: num_tables})
    yield case("table_255", {table_of: 255})
    trellis = trellis_blob()
    at = field_offsets(trellis)["table_stream"][0]
    last_place = thresholds + 2 * 3 * 5 - 1  # an odd byte: the high one of its word
    word = at + last_place // 2
    yield "trellis_table_255", patched(trellis, word, int(trellis[word]) | 0xFF00), "TK_ERR_TABLE"
    yield case("first_plus_count_above_128", {firsts + table: 128 - raw[counts + table] + 1})
    yield case("first_127", {firsts + table: 127})
    yield case("count_more", {counts + table: raw[counts + table] + 1}, "TK_ERR_HEADER")
    yield case("count_less", {counts + table: raw[counts + table] - 1}, "TK_ERR_HEADER")
    yield case("code_81", {other: 81})
    yield case("code_126", {other: 126})
    yield case("code_128", {other: 128})
    yield case("code_255", {other: 255})
    yield case("two_rests", {other: 127})
    yield case("no_rest", {rest: 1})
    yield case("frequency_4096", {other: 80})
    yield case("frequencies_above_4096", {other: 79})
    yield case("only_the_rest", {at: 0 for at in range(begin, end) if at != rest})


def _stream_cases() -> Iterator[Case]:
    blobs = (("plain", plain_blob()), ("trellis", trellis_blob()), ("wide", wide_blob()))
    for kind, good in blobs:
        fields = field_offsets(good)
        state = fields["states"][0]
        yield f"{kind}_state_65535", patched(good, state, 0xFFFF, 0), "TK_ERR_STREAM"
        yield f"{kind}_state_0", patched(good, state, 0, 0), "TK_ERR_STREAM"
        # In the wide blob the same flips only change raw low bits: another valid stream.
        for at in (state, fields["code_words"][0], good.size - 1) if kind != "wide" else ():
            changed = patched(good, at, int(good[at]) ^ 1)
            yield f"{kind}_stream_{at}", changed, "TK_ERR_STREAM"
        first_block = fields["block_lengths"][0]
        count = fields["code_word_count"][0]
        for name, words in (
            ("unread_word", np.append(good, np.uint16(0))),
            ("missing_word", good[:-1]),
        ):
            step = words.size - good.size
            changed = resized(words)
            last_block = first_block + fields["block_lengths"][1] - 2
            changed[last_block] = int(good[last_block]) + step
            changed[count] = int(good[count]) + step
            yield f"{kind}_{name}", with_checksum(changed), "TK_ERR_STREAM"


def _short_lane_case() -> Case:
    # Nothing but the state in which the short lane ends tells the two apart.
    good = short_lane_blob()
    last = sum(field_offsets(good)["states"]) - 2
    return "short_lane_state", patched(good, last, int(good[last]) ^ 1), "TK_ERR_STREAM"


def _exception_cases() -> Iterator[Case]:
    good = wide_blob()
    at = field_offsets(good)["exceptions"][0]
    first, second = good[at : at + 4], good[at + 4 : at + 8]

    def case(name: str, where: int, *values: int) -> Case:
        return f"exception_{name}", patched(good, where, *values), "TK_ERR_EXCEPTION"

    yield case("last_word", at + 3, 1)
    yield case("order", at, *second.tolist(), *first.tolist())
    yield case("twice", at + 4, *first[:2].tolist())
    yield case("past_the_lane", at + 8, 24 + 12, 0)
    yield case("past_the_segment", at + 8, 48, 0)
    yield case("huge", at + 8, 0xFFFF, 0xFFFF)


def _nested_cases() -> Iterator[Case]:
    good = nested_blob()
    fields = field_offsets(good)
    body, size = fields["inner"]
    inner = field_offsets(good, body)

    def case(name: str, at: int, *values: int, code: str = "TK_ERR_HEADER") -> Case:
        return f"inner_{name}", patched(good, at, *values), code

    yield case("one_tensor", body, 1)
    yield case("wide", body + 2, 1)
    yield case("nested", body + 2, 2)
    yield case("trellis", body + 2, 4)
    yield case("trellis_set", inner["sets"][0], int(good[inner["sets"][0]]) | 0x80)
    yield case("no_tables", body + 3, 0)
    yield case("lanes", inner["lanes"][0], int(good[inner["lanes"][0]]) + 1)
    yield case("state", inner["states"][0], 0, 0, code="TK_ERR_STREAM")
    at = inner["code_words"][0]
    yield case("stream", at, int(good[at]) ^ 1, code="TK_ERR_STREAM")
    yield case("shorter", body - 2, size - 1, 0, code="TK_ERR_TRUNCATED")
    yield case("longer", body - 2, size + 1, 0, code="TK_ERR_TRUNCATED")
    yield case("huge", body - 2, 0xFFFF, 0xFFFF, code="TK_ERR_TRUNCATED")
    yield "inner_padding_not_zero", nested_blob(NestedPadding(b"\1")), "TK_ERR_HEADER"
    yield "inner_padding_too_long", nested_blob(NestedPadding(extra_rows=1)), "TK_ERR_HEADER"
    at = fields["class_bytes"][0]
    yield case("class_bytes", at, int(good[at]) + 1)
    at = fields["table_bytes"][0]
    yield case("table_bytes_less", at, int(good[at]) - 1)
    yield case("table_bytes_huge", at, 0xFFFF, 0x7FFF)


def _cuts() -> Iterator[Case]:
    """Cut at the start and one word before the end of each field; length and checksum repaired."""
    blobs: list[tuple[str, Callable[[], Words]]] = [
        ("plain", plain_blob),
        ("nested", nested_blob),
        ("trellis", trellis_blob),
        ("wide", wide_blob),
    ]
    for kind, make in blobs:
        good = make()
        for name, (at, size) in field_offsets(good).items():
            for end in sorted({at, at + size - 1} - {at - 1}):
                yield f"{kind}_cut_{name}_{end}", resized(good[:end]), "TK_ERR_TRUNCATED"
        yield f"{kind}_goes_on", resized(np.append(good, np.uint16(0))), "TK_ERR_TRUNCATED"


def malformed_blobs() -> Iterator[Case]:
    """(name, words uint16 [n], name of the expected status); names are unique."""
    yield from _frame_cases()
    yield from _header_cases()
    yield _segment_too_large()
    yield _more_symbols_than_bits()
    yield from _matrix_of_few_words()
    yield from _table_cases()
    yield from _stream_cases()
    yield _short_lane_case()
    yield from _exception_cases()
    yield from _nested_cases()
    yield from _cuts()


def refused_otherwise(decode: Callable[[Words], bool | None]) -> list[tuple[str, str, str]]:
    """The blobs that `decode` does not refuse with their code: name, code, what was found. It
    returns False for a blob that it cannot try."""
    wrong = []
    for name, words, code in malformed_blobs():
        try:
            if decode(words) is False:
                continue
            found = "none"
        except CodecError as error:
            found = f"TK_ERR_{error.code.name}"
        if found != code:
            wrong.append((name, code, found))
    return wrong
