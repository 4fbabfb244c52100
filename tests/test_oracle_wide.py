# SPDX-License-Identifier: Apache-2.0
"""The NumPy oracle against the reference encoder, golden bytes and the malformed corpus."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.oracle import FormatError, decode_matrix, decode_segment
from tests.malformed_corpus import malformed_blobs
from tests.wide_reference_encoder import TableSet, Tensor, encode_segment
from tests.wide_samples import Sample, laplace, samples

SAMPLES = list(samples())
MALFORMED = list(malformed_blobs())

# Two tensors, K = 5 with two classes along A, one short last lane. Words as hex.
GOLDEN_SYMBOLS = [
    [[[0, 1, -1], [2, 0, 0]], [[-3, 0, 4], [0, 0, -1]], [[0, 0, 0], [1, 0, 0]]],
    [[[5, -5, 5, -5]]],
]
GOLDEN_HEX = (
    "4e57010188de8da7590000000200020000000b0003000000020000000c0000000100000000000000"
    "030000003c0000000300000002000000030000000400000000010000010000000100000004000000"
    "0100000001000000050201010001000002020505000102030405060708090a0000ff00000000fd00"
    "00fb000004000000000800000b347f3c343d003d7f0000003d7f0000000000000000004801000000"
    "00000000ca47140050e5310000281000c85e"
)


def golden_words() -> np.ndarray:
    return np.frombuffer(bytes.fromhex(GOLDEN_HEX), "<u2").astype(np.uint16)


def golden_tensors() -> list[Tensor]:
    first, second = (np.array(symbols, np.int8) for symbols in GOLDEN_SYMBOLS)
    return [
        Tensor(first, rows_per_lane=4, class_a=np.array([0, 1, 0], np.int8)),
        Tensor(second, table_set=1),
    ]


def test_golden_words_decode_to_golden_symbols() -> None:
    arrays = decode_segment(golden_words())
    assert [a.tolist() for a in arrays] == GOLDEN_SYMBOLS
    assert all(a.dtype == np.int8 for a in arrays)
    matrix = decode_matrix(golden_words())
    assert matrix.tolist() == [
        [0, 1, -1, 2, 0, 0, -3, 0, 4, 0, 0, -1],
        [0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0],
        [5, -5, 5, -5, 0, 0, 0, 0, 0, 0, 0, 0],
    ]


def test_reference_encoder_writes_golden_words() -> None:
    words = encode_segment(golden_tensors(), [TableSet(5, 2), TableSet(1, 1)])
    assert words.astype("<u2").tobytes().hex() == GOLDEN_HEX


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda s: s.name)
def test_sample_round_trip(sample: Sample) -> None:
    arrays = decode_segment(sample.encode())
    assert len(arrays) == len(sample.tensors)
    for array, expected in zip(arrays, sample.decoded(), strict=True):
        assert array.dtype == (np.int16 if sample.wide else np.int8)
        np.testing.assert_array_equal(array, expected)


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda s: s.name)
def test_matrix_is_zero_past_the_end_of_a_lane(sample: Sample) -> None:
    matrix = decode_matrix(sample.encode())
    lane = 0
    for tensor, expected in zip(sample.tensors, sample.decoded(), strict=True):
        flat = expected.reshape(-1)
        steps = tensor.rows_per_lane * tensor.symbols.shape[2]
        for start in range(0, flat.size, steps):
            row = flat[start : start + steps]
            np.testing.assert_array_equal(matrix[lane, : row.size], row)
            assert not matrix[lane, row.size :].any()
            lane += 1
    assert lane == matrix.shape[0]


@pytest.mark.parametrize("contexts", [1, 5])
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 33), (33, 1, 1), (3, 11, 2), (65, 1, 3)])
@pytest.mark.parametrize("rows_per_lane", [1, 2, 1000])
def test_round_trip_grid(contexts: int, shape: tuple[int, int, int], rows_per_lane: int) -> None:
    symbols = laplace(shape, 4, sum(shape))
    tensor = Tensor(symbols, rows_per_lane=min(rows_per_lane, shape[0] * shape[1]))
    (array,) = decode_segment(encode_segment([tensor], [TableSet(contexts, 1)]))
    np.testing.assert_array_equal(array, symbols)


@st.composite
def segments(draw: st.DrawFn) -> Sample:
    """Any segment of up to three small tensors."""
    wide = draw(st.booleans())
    sets = [
        TableSet(
            draw(st.sampled_from((1, 5))), draw(st.integers(1, 4)), trellis=draw(st.booleans())
        )
        for _ in range(draw(st.integers(1, 3)))
    ]
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    tensors = []
    for _ in range(draw(st.integers(1, 3))):
        shape = tuple(draw(st.integers(1, high)) for high in (40, 4, 9))
        limit = draw(st.sampled_from((1, 5, 60) + ((300, 16384) if wide else ())))
        symbols = random.integers(-limit, limit, shape).astype(np.int16 if wide else np.int8)
        arrays = [
            random.integers(-3, 4, size).astype(np.int8) if draw(st.booleans()) else None
            for size in shape
        ]
        tensors.append(
            Tensor(
                symbols,
                draw(st.integers(1, shape[0] * shape[1])),
                draw(st.integers(0, len(sets) - 1)),
                *arrays,
                class_base=draw(st.integers(-3, 6)),
                low_bits=draw(st.integers(0, 8)) if wide else 0,
            )
        )
    return Sample(
        "drawn",
        tensors,
        sets,
        wide,
        draw(st.sampled_from((0, 1, 7))),
        share=draw(st.integers(1, 3)),
    )


@settings(max_examples=60, deadline=None)
@given(segments())
def test_any_segment_round_trips(sample: Sample) -> None:
    arrays = decode_segment(sample.encode())
    for array, expected in zip(arrays, sample.decoded(), strict=True):
        np.testing.assert_array_equal(array, expected)


def test_names_of_the_malformed_corpus_are_unique() -> None:
    assert len({name for name, _, _ in MALFORMED}) == len(MALFORMED)


@pytest.mark.parametrize(("name", "words", "code"), MALFORMED, ids=[m[0] for m in MALFORMED])
def test_malformed_blob_is_refused(name: str, words: np.ndarray, code: str) -> None:
    with pytest.raises(FormatError) as caught:
        decode_matrix(words)
    assert caught.value.code == code, (name, str(caught.value))


def test_every_flipped_bit_is_refused() -> None:
    good = golden_words()
    for at in range(good.size):
        for bit in range(16):
            words = good.copy()
            words[at] ^= 1 << bit
            with pytest.raises(FormatError):
                decode_matrix(words)


def test_other_arrays_are_refused() -> None:
    for words in (golden_words().astype(np.int32), golden_words().reshape(1, -1)):
        with pytest.raises(FormatError) as caught:
            decode_matrix(words)
        assert caught.value.code == "TK_ERR_ARGUMENT"
