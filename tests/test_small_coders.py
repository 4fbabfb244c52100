# SPDX-License-Identifier: Apache-2.0
"""The coders of small tensors: C++ against the oracle, golden bytes, malformed blobs."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime import library
from runtime.errors import CodecError, Status
from runtime.oracle.adaptive import decode_adaptive
from runtime.oracle.errors import FormatError
from runtime.oracle.fixed import decode_fixed
from runtime.oracle.huffman import decode_huffman
from runtime.small import SmallCoder, decode_small, encode_small, small_info
from tests.small_samples import CODERS, Words, blob, fits, streams, with_checksum, with_word

ORACLE = {"adaptive": decode_adaptive, "huffman": decode_huffman, "fixed": decode_fixed}

GOLDEN_SYMBOLS = [0, 1, -1, 0, 2, 0, 0, -3, 0, 1, 1, 0]
GOLDEN = {
    "adaptive": "574e 0201 7c66 fc0c 000b 0000 000c 0305 0314 b13d 21aa",
    "huffman": "574e 0301 64a5 82d6 000e 0000 000c 4400 fffd 0006 4b37 0088 5ec7 2800",
    "fixed": "574e 0401 fd68 9f5b 000c 0000 000c 0300 fffd d6a3 230d 0007",
}


def outcome(words: Words, coder: str) -> object:
    """What both decoders say of a blob: the symbols, or the code of the error."""
    try:
        ours: object = decode_small(words).tolist()
    except CodecError as error:
        ours = f"TK_ERR_{error.code.name}"
    try:
        theirs: object = ORACLE[coder](words).tolist()
    except FormatError as error:
        theirs = error.code
    assert ours == theirs
    return ours


@pytest.mark.parametrize("coder", CODERS)
def test_round_trip_and_oracle(coder: SmallCoder) -> None:
    for name, symbols, row_length in streams():
        if not fits(coder, symbols):
            with pytest.raises(CodecError):
                encode_small(symbols, coder)
            continue
        words = encode_small(symbols, coder, row_length)
        assert small_info(words) == (coder, symbols.size), name
        np.testing.assert_array_equal(decode_small(words), symbols, name)
        if symbols.size <= 2000:
            np.testing.assert_array_equal(ORACLE[coder](words), symbols, name)


def test_auto_is_the_smallest() -> None:
    for name, symbols, row_length in streams():
        sizes = [encode_small(symbols, c, row_length).size for c in CODERS if fits(c, symbols)]
        assert encode_small(symbols, "auto", row_length).size == min(sizes), name


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(-32768, 32767) | st.integers(-4, 4), min_size=1, max_size=80),
    st.sampled_from(CODERS),
    st.integers(0, 70),
)
def test_any_stream(values: list[int], coder: SmallCoder, row_length: int) -> None:
    symbols = np.array(values, np.int16)
    if fits(coder, symbols):
        assert outcome(encode_small(symbols, coder, row_length), coder) == values


@pytest.mark.parametrize("coder", CODERS)
def test_golden(coder: SmallCoder) -> None:
    words = np.array([int(word, 16) for word in GOLDEN[coder].split()], np.uint16)
    assert outcome(words, coder) == GOLDEN_SYMBOLS
    np.testing.assert_array_equal(encode_small(np.array(GOLDEN_SYMBOLS, np.int16), coder), words)


def test_frame_errors() -> None:
    words = encode_small(np.arange(-5, 6, dtype=np.int16), "fixed")
    cases = {
        "TK_ERR_TRUNCATED": [words[:5], words[:-1], np.append(words, np.uint16(0))],
        "TK_ERR_MAGIC": [with_word(words, 0, 0x574F)],
        "TK_ERR_VERSION": [with_word(words, 1, 4 << 8 | 2)],
        "TK_ERR_CODER": [with_word(words, 1, 9 << 8 | 1)],
        "TK_ERR_CHECKSUM": [np.where(np.arange(words.size) == 7, words ^ 1, words)],
    }
    for code, blobs in cases.items():
        for damaged in blobs:
            assert outcome(damaged.astype(np.uint16), "fixed") == code


# One blob for each check of FORMAT.md 3 to 5. Adaptive words: n, K − 1 | centre, prior, …
SHAPE, CONTEXT = 1 << 14, 1 << 15
MALFORMED = {
    "adaptive": [
        ("TK_ERR_TRUNCATED", [1, 0]),
        ("TK_ERR_TRUNCATED", [1, 0, SHAPE]),
        ("TK_ERR_TRUNCATED", [1, 0, CONTEXT, 1 << 10]),
        ("TK_ERR_HEADER", [0, 0, 0]),
        ("TK_ERR_HEADER", [1, 0, SHAPE, 1 << 15, 17]),  # n above 2^20
        ("TK_ERR_HEADER", [1, 1 << 8, 0]),  # centre above the tokens
        ("TK_ERR_HEADER", [1, 0, SHAPE, 9 << 10]),  # raw bits
        ("TK_ERR_HEADER", [1, 0, SHAPE, 1 << 14 | 1 << 10, -20000]),  # below -32768
        ("TK_ERR_HEADER", [1, 1, SHAPE, 1 << 14, 32767]),  # above 32767
        ("TK_ERR_HEADER", [1, 0, CONTEXT, 1 << 11, 0 | 1 << 8]),  # t1 = 0
        ("TK_ERR_HEADER", [1, 0, CONTEXT, 1 << 11, 2 | 1 << 8]),  # t1 > t2
        ("TK_ERR_HEADER", [1, 0, CONTEXT, 1 << 10, 0]),  # distance
        ("TK_ERR_HEADER", [5000, 0, 7 << 11]),  # counts above 2^26
        ("TK_ERR_TRUNCATED", [9, 0, SHAPE, 8 << 10, 0]),  # raw words missing
        ("TK_ERR_STREAM", [2, 255, 0, 1, 0]),  # ends in zero
        ("TK_ERR_STREAM", [1, 0, 0, 0xFFFF, 0xFFFF]),  # outside of the range
        ("TK_ERR_STREAM", [1, 3, 0, 0, 0, 0, 1]),  # words left over
    ],
    "huffman": [
        ("TK_ERR_TRUNCATED", [1, 0, 0]),
        ("TK_ERR_HEADER", [0, 2 << 8, 0, 1, 1]),
        ("TK_ERR_HEADER", [1, 2 << 8, 0, 0]),
        ("TK_ERR_HEADER", [1, 2 << 8, 0, 4097]),
        ("TK_ERR_HEADER", [1, 1 << 8, 0, 1]),
        ("TK_ERR_HEADER", [1, 5 << 8, 0, 1]),
        ("TK_ERR_HEADER", [1, 2 << 8, 32767, 2]),
        ("TK_ERR_TRUNCATED", [1, 2 << 8, 0, 1]),
        ("TK_ERR_TABLE", [1, 2 << 8, 0, 1, 2]),  # an only symbol of length 1
        ("TK_ERR_TABLE", [1, 2 << 8 | 2 << 12, 0, 2, 0b0101, 0]),  # half of the slots
        ("TK_ERR_TABLE", [1, 2 << 8, 0, 3, 0b011001, 0]),  # the first has no code
        ("TK_ERR_TABLE", [1, 2 << 8 | 13 << 12, 0, 2, 0b0101, 0]),  # 13 bits
        ("TK_ERR_TRUNCATED", [17, 2 << 8 | 1 << 12, 0, 2, 0b0101, 0]),
        ("TK_ERR_TRUNCATED", [1, 2 << 8 | 1 << 12, 0, 2, 0b0101, 0, 0]),
        ("TK_ERR_STREAM", [9, 2 << 8 | 1 << 12, 0, 3, 0b011001, 0xFFFF]),  # 18 bits of 16
        ("TK_ERR_STREAM", [15, 2 << 8 | 1 << 12, 0, 2, 0b0101, 0, 0]),  # 17 bits left
    ],
    "fixed": [
        ("TK_ERR_TRUNCATED", [1, 0]),
        ("TK_ERR_HEADER", [0, 0, 0]),
        ("TK_ERR_HEADER", [1, 17 << 8, 0, 0, 0]),
        ("TK_ERR_TRUNCATED", [3, 8 << 8, 0, 0]),
        ("TK_ERR_TRUNCATED", [3, 4 << 8, 0, 0, 0]),
        ("TK_ERR_STREAM", [2, 8 << 8, 32767, 0x0100]),
    ],
}
NUMBERS = {"adaptive": 2, "huffman": 3, "fixed": 4}


@pytest.mark.parametrize("coder", CODERS)
def test_malformed(coder: str) -> None:
    for code, body in MALFORMED[coder]:
        assert outcome(blob(NUMBERS[coder], *body), coder) == code, (code, body)


@pytest.mark.parametrize("coder", CODERS)
def test_cut_and_flipped_blobs_never_crash(coder: SmallCoder) -> None:
    rng = np.random.default_rng(3)
    symbols = np.rint(rng.laplace(0, 3, 120)).astype(np.int16)
    words = encode_small(symbols, coder, 10)
    for size in range(words.size):
        assert isinstance(outcome(words[:size], coder), str)
        if size >= 6:
            assert isinstance(outcome(with_checksum(words[:size]), coder), str) or size > 6
    for index in range(words.size * 2):
        damaged = words.copy()
        damaged.view(np.uint8)[index] ^= np.uint8(rng.integers(1, 256))
        assert isinstance(outcome(damaged, coder), str)
        if index >= 12:
            outcome(with_checksum(damaged), coder)


def test_arguments() -> None:
    cases = [
        (np.zeros(3, np.int32), "auto", 0),
        (np.zeros(0, np.int16), "auto", 0),
        (np.zeros(3, np.int16), "none", 0),
        (np.zeros(3, np.int16), "auto", -1),
        (np.zeros(2**20 + 1, np.int16), "adaptive", 0),
    ]
    for symbols, coder, row_length in cases:
        with pytest.raises(CodecError) as caught:
            encode_small(symbols, coder, row_length)  # type: ignore[arg-type]
        assert caught.value.code == Status.ARGUMENT
    with pytest.raises(CodecError):
        decode_small(np.zeros((2, 6), np.uint16))


def test_crc32_of_every_length() -> None:
    data = np.random.default_rng(1).integers(0, 256, 300, dtype=np.uint8)
    for start in range(3):
        for size in range(290):
            part = np.ascontiguousarray(data[start : start + size])
            found = library.load().tk_crc32(part.ctypes.data, part.size)
            assert found == zlib.crc32(part.tobytes())


def test_adaptive_beats_static_tables_on_small_tensors() -> None:
    """Bytes against the zeroth-order entropy plus 6 bits per entry of a table."""
    rng = np.random.default_rng(5)
    for n, spread in ((150, 3.0), (600, 3.0), (600, 20.0), (2400, 20.0)):
        symbols = np.rint(rng.normal(0, spread, n)).astype(np.int16)
        counts = np.unique(symbols, return_counts=True)[1]
        entropy = -(counts * np.log2(counts / n)).sum() / 8
        body_bytes = 2 * encode_small(symbols, "adaptive").size - 12
        assert body_bytes < entropy + 6 / 8 * counts.size


@pytest.mark.parametrize("number", [1, 2, 3, 5, 16, 17, 100, 256, 257])
def test_indices_take_the_bits_of_their_number(number: int) -> None:
    """Vanilla indices: ceil(log2 N) bits each, whatever the offset of the symbols."""
    symbols = (np.arange(8000) % number - number // 3).astype(np.int16)
    words = encode_small(symbols, "fixed")
    bits = (number - 1).bit_length()
    assert 0 <= words.nbytes - 1000 * bits <= 24
