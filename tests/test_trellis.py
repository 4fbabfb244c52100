# SPDX-License-Identifier: Apache-2.0
"""Dependent quantisation: the choice of symbols against brute force, blobs of trellis tensors."""

from __future__ import annotations

import itertools
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from runtime import CodecError, Status, WideReader, encode_wide
from runtime.oracle import decode_matrix, decode_segment
from runtime.trellis import search_symbols, trellis_integers
from runtime.wide import Isa
from tests.test_wide_encoder import whole_numbers
from tests.wide_reference_encoder import TableSet, Tensor, decoded_symbols, encode_segment
from tests.wide_samples import laplace, laplace16

TRELLIS_SET = TableSet(trellis=True)

# One tensor, K = 5 with two classes along A, in three rows of which two make a lane. Words as hex.
GOLDEN_SYMBOLS = [[[0, 1, -1, 1], [2, 0, 0, -3]], [[-3, 1, 4, 0], [0, 0, -1, 2]]]
GOLDEN_INTEGERS = [[[0, 2, -2, 1], [4, 0, 0, -6]], [[-6, 2, 7, 0], [0, 0, -2, 4]]]
GOLDEN_HEX = (
    "4e5701016a76a64a5300000001000100040014000200000001000000080000000000000000000000"
    "02000000520000000200000002000000040000000200000000010000850200010202050500010203"
    "0405060708090a0b0c0d0e0f1011121300000000fd010000000000000100fd040000000000000000"
    "060200000000000002000602000000003b003b7f3b3b7f017f013d003d7f003d7f01000000007b5a"
    "912dfff21103"
)


def integers_of(symbols: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """By the reference encoder's own table."""
    return decoded_symbols(Tensor(symbols), TRELLIS_SET)


def test_integers_of_symbols() -> None:
    symbols = laplace16((5, 3, 70), 40, 1)
    np.testing.assert_array_equal(trellis_integers(symbols), integers_of(symbols))
    assert trellis_integers(np.empty((0, 4), np.int16)).shape == (0, 4)
    with pytest.raises(CodecError):
        trellis_integers(np.full((1, 1), 20000, np.int16))


def test_both_quantisers_together_have_every_integer() -> None:
    symbols = np.array(list(itertools.product(range(-3, 4), repeat=3)), np.int16)
    reached = trellis_integers(symbols)
    assert set(reached[:, 0].tolist()) == set(range(-6, 7, 2))
    assert set(reached[:, 2].tolist()) >= set(range(-5, 6))


def brute_force(values: npt.NDArray[np.float32], weights: npt.NDArray[np.float32]) -> float:
    """The least weighted squared error of any symbols -4 ... 4 of one row."""
    paths = np.array(list(itertools.product(range(-4, 5), repeat=values.size)), np.int16)
    errors = (trellis_integers(paths).astype(np.float64) - values) ** 2 * weights
    return float(errors.sum(1).min())


@pytest.mark.parametrize("seed", range(12))
def test_least_error_is_that_of_brute_force(seed: int) -> None:
    random = np.random.default_rng(seed)
    values = random.normal(0, 3, (1, 1, 5)).clip(-6, 6).astype(np.float32)
    weights = random.uniform(0.2, 3, values.shape).astype(np.float32)
    symbols, _ = search_symbols(values, importance=weights)
    found = float(((trellis_integers(symbols) - values.astype(np.float64)) ** 2 * weights).sum())
    assert found == pytest.approx(brute_force(values[0, 0], weights[0, 0]), rel=1e-9)


def code_lengths(symbols: npt.NDArray[np.int16]) -> dict[int, float]:
    """Bits of each symbol by the frequencies that one table would have."""
    found, counts = np.unique(symbols, return_counts=True)
    return dict(zip(found.tolist(), -np.log2(counts / symbols.size), strict=True))


@pytest.mark.parametrize("rate_weight", [0.1, 0.4, 1.0])
def test_plain_choice_weighs_error_and_rate(rate_weight: float) -> None:
    """With one table each value has a choice of its own: the best symbol is known."""
    values = np.random.default_rng(3).laplace(0, 1.5, (1, 400, 1)).astype(np.float32)
    before, _ = search_symbols(values, trellis=False)
    after, _ = search_symbols(values, trellis=False, rate_weight=rate_weight, rounds=1, starts=1)
    np.testing.assert_array_equal(before, np.rint(values).astype(np.int16))
    lengths = code_lengths(before)

    def cost(symbols: npt.NDArray[np.int16]) -> float:
        bits = np.vectorize(lengths.__getitem__)(symbols)
        return float(((symbols - values.astype(np.float64)) ** 2 + rate_weight * bits).sum())

    best = sum(
        min((k - float(v)) ** 2 + rate_weight * bits for k, bits in lengths.items())
        for v in values.reshape(-1)
    )
    # Stored frequencies are rounded to eighths of an octave, and classes may differ.
    assert cost(after) <= best + 0.1 * rate_weight * values.size
    assert cost(after) < cost(before) or rate_weight == 0.1


def test_rate_lowers_bits_and_raises_error() -> None:
    values = np.random.default_rng(1).laplace(0, 1.2, (1, 60, 200)).astype(np.float32)
    sizes, errors = [], []
    for rate_weight in (0.0, 0.3, 1.0):
        symbols, bits = search_symbols(values, rate_weight=rate_weight)
        blob = encode_wide([symbols.astype(np.int8)], trellis=[True])
        sizes.append(blob.nbytes)
        errors.append(float(((trellis_integers(symbols) - values) ** 2).sum()))
        assert bits == pytest.approx(blob.nbytes * 8, rel=0.1)
    assert sizes == sorted(sizes, reverse=True) and errors == sorted(errors)


def test_trellis_takes_fewer_bytes_at_the_same_error() -> None:
    values = np.random.default_rng(2).normal(0, 1, (1, 100, 800)).astype(np.float32)
    plain, _ = search_symbols(values / np.float32(0.5), trellis=False, rate_weight=0.1)
    symbols, _ = search_symbols(values / np.float32(0.295), rate_weight=0.3)
    error = np.square(plain * 0.5 - values).sum()
    assert np.square(trellis_integers(symbols) * 0.295 - values).sum() < error
    sizes = [
        encode_wide([s.astype(np.int8)], trellis=[t]).nbytes
        for s, t in ((plain, False), (symbols, True))
    ]
    assert sizes[1] < 0.97 * sizes[0]


@pytest.mark.parametrize(("width", "better"), [(0.95, 0.98), (1.2, 1.0)])
@pytest.mark.parametrize("trellis", [False, True])
def test_the_better_end_of_two_starts_counts(trellis: bool, width: float, better: float) -> None:
    """Small values spread over about two steps, beside large ones: the first choice makes ones
    cheap among them, and zeros are better where they are not wider."""
    rng = np.random.default_rng(7)
    values = rng.uniform(-width, width, (1, 400, 64)).astype(np.float32)
    values[:, :, 24:40] = rng.laplace(0, 15, (1, 400, 16))
    weight = 0.3 if trellis else 0.2
    costs = []
    for starts in (1, 2):
        symbols, bits = search_symbols(values, trellis=trellis, rate_weight=weight, starts=starts)
        integers = trellis_integers(symbols) if trellis else symbols
        costs.append(float(((integers - values.astype(np.float64)) ** 2).sum()) + weight * bits)
    assert costs[1] <= better * costs[0]
    if better < 1:
        assert not integers[:, :, :24].any()


def test_choice_does_not_depend_on_the_number_of_threads() -> None:
    values = laplace((3, 40, 90), 4, 1).astype(np.float32) / 3
    one = search_symbols(values, rate_weight=0.3, threads=1)
    three = search_symbols(values, rate_weight=0.3, threads=3)
    np.testing.assert_array_equal(one[0], three[0])
    assert one[1] == three[1]


def test_what_is_not_kept_is_zero_and_the_largest_magnitude_holds() -> None:
    values = np.random.default_rng(4).normal(0, 30, (2, 5, 40)).astype(np.float32)
    kept = np.random.default_rng(5).random(values.shape) < 0.6
    for most in (1, 2, 7, 127):
        symbols, _ = search_symbols(values, kept=kept, most=most, rate_weight=0.2)
        integers = trellis_integers(symbols)
        assert not integers[~kept].any()
        assert int(np.abs(integers).max()) <= most
    far, _ = search_symbols(np.full((1, 1, 9), 1e6, np.float32))
    assert int(trellis_integers(far).min()) >= 32760


def test_bad_arguments_are_refused() -> None:
    values = np.zeros((1, 2, 3), np.float32)
    for wrong in (
        {"rate_weight": -1.0},
        {"rate_weight": np.nan},
        {"most": 0},
        {"most": 40000},
        {"rounds": -1},
        {"starts": 0},
        {"starts": 3},
        {"importance": np.ones((1, 2, 4), np.float32)},
    ):
        with pytest.raises(CodecError) as caught:
            search_symbols(values, **wrong)  # type: ignore[arg-type]
        assert caught.value.code == Status.ARGUMENT
    for shape in ((2, 3), (1, 0, 3)):
        with pytest.raises(CodecError):
            search_symbols(np.zeros(shape, np.float32))
    with pytest.raises(CodecError, match="trellis says of 2"):
        encode_wide([np.zeros((1, 1, 1), np.int8)], trellis=[True, False])
    with pytest.raises(CodecError):
        encode_wide([np.full((1, 1, 1), 64, np.int8)], trellis=[True])


def test_golden_words_decode_to_golden_integers() -> None:
    words = np.frombuffer(bytes.fromhex(GOLDEN_HEX), "<u2").astype(np.uint16)
    assert [a.tolist() for a in decode_segment(words)] == [GOLDEN_INTEGERS]
    assert WideReader(words).decode_tensor(0).tolist() == GOLDEN_INTEGERS
    tensor = Tensor(np.array(GOLDEN_SYMBOLS, np.int8), 2, class_a=np.array([0, 1], np.int8))
    again = encode_segment([tensor], [TableSet(5, 2, trellis=True)])
    assert again.astype("<u2").tobytes().hex() == GOLDEN_HEX


@pytest.mark.parametrize(("dtype", "digest"), [(np.int8, 0x62090693), (np.int16, 0x8928157C)])
def test_golden_digest(dtype: Any, digest: int) -> None:
    tensors = [whole_numbers((3, 40, 33), 2, 1), whole_numbers((1, 70, 200), 9, 2)]
    if dtype == np.int16:
        tensors[1] *= 70
    words = encode_wide([t.astype(dtype) for t in tensors], trellis=[True, True])
    assert zlib.crc32(words.astype("<u2").tobytes()) == digest


@pytest.mark.parametrize("isa", ["portable", "avx2", "avx512"])
@pytest.mark.parametrize("contexts", ["off", "auto", "on"])
@pytest.mark.parametrize("dtype", [np.int8, np.int16])
def test_encoded_tensors_come_back_as_integers(dtype: Any, contexts: Any, isa: Any) -> None:
    make = laplace if dtype == np.int8 else laplace16
    shapes = [(70, 3, 10), (1, 1, 1), (33, 1, 65), (5, 40, 9), (1, 1, 400)]
    tensors = [make(shape, 3 if n % 2 else 30, n) // 2 for n, shape in enumerate(shapes)]
    if dtype == np.int16:
        tensors[0][5:9] *= 40  # raw low bits
        tensors[3][2, 5] = 16000  # exceptions
    trellis = [True, True, False, True, True]
    words = encode_wide(tensors, trellis=trellis, contexts=contexts, steps=300)
    reader = WideReader(words)
    np.testing.assert_array_equal(reader.decode_all(isa=isa), decode_matrix(words))
    for index, (tensor, flag) in enumerate(zip(tensors, trellis, strict=True)):
        expected = integers_of(tensor) if flag else tensor
        found = reader.decode_tensor(index, isa=isa).reshape(tensor.shape)
        np.testing.assert_array_equal(found, expected)


def test_integers_do_not_depend_on_rows_per_lane() -> None:
    symbols = laplace((9, 4, 20), 4, 3) // 2
    for rows in (1, 2, 7, 36):
        (found,) = decode_segment(encode_segment([Tensor(symbols, rows)], [TRELLIS_SET]))
        np.testing.assert_array_equal(found, integers_of(symbols))


@pytest.mark.parametrize("seed", range(40))
def test_every_instruction_set_chooses_alike(seed: int) -> None:
    random = np.random.default_rng(seed)
    shape = (*random.integers(1, 6, 2), random.integers(1, 300))
    values = random.laplace(0, 10 ** random.uniform(-1, 3.3), shape).astype(np.float32)
    if seed % 3 == 0:
        values[..., ::3] = 0
    importance = random.uniform(0.1, 3, shape).astype(np.float32) if seed % 2 else None
    kept = random.random(shape) < 0.7 if seed % 4 == 1 else None
    rate_weight, most = [0.0, 0.1, 0.5, 2.0][seed % 4], [1, 2, 7, 300, 32767][seed % 5]

    def chosen(isa: Isa) -> tuple[npt.NDArray[np.int16], float]:
        return search_symbols(
            values,
            rate_weight=rate_weight,
            rounds=seed % 3,
            most=most,
            importance=importance,
            kept=kept,
            isa=isa,
        )

    symbols, bits = chosen("portable")
    for other, other_bits in (chosen("avx2"), chosen("auto")):
        np.testing.assert_array_equal(symbols, other)
        assert bits == other_bits
