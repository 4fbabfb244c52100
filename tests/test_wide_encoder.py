# SPDX-License-Identifier: Apache-2.0
"""What the C++ wide encoder writes: the same on every machine, sound in its corner cases."""

from __future__ import annotations

import gc
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from runtime import WideReader, encode_wide
from runtime.oracle import decode_segment
from tests.wide_samples import laplace, laplace16


def whole_numbers(shape: tuple[int, int, int], spread: int, seed: int) -> npt.NDArray[np.int64]:
    """Pseudo-random symbols from whole numbers only, so that they are the same everywhere."""
    state = np.arange(1, 1 + int(np.prod(shape)), dtype=np.uint64) * np.uint64(
        2654435761 + 2 * seed
    )
    parts = [(state >> np.uint64(shift)) % np.uint64(2 * spread + 1) for shift in (9, 17, 25)]
    return (sum(part.astype(np.int64) for part in parts) - 3 * spread).reshape(shape)


def scaled_rows(shape: tuple[int, int, int]) -> npt.NDArray[np.int8]:
    """Rows, and within them columns, of spreads from far below one to some fifty."""
    spreads = np.exp2(np.arange(shape[1]) % 23 / 2.0 - 5)[:, None]
    spreads = spreads * np.exp2(np.arange(shape[2]) % 5 - 2.0)
    noise = np.random.default_rng(5).laplace(0, 1, shape) * spreads
    return np.clip(np.rint(noise), -127, 127).astype(np.int8)


def check_symbols(words: npt.NDArray[np.uint16], tensors: list[npt.NDArray[Any]]) -> None:
    reader = WideReader(words)
    for index, (tensor, slow) in enumerate(zip(tensors, decode_segment(words), strict=True)):
        np.testing.assert_array_equal(slow.reshape(tensor.shape), tensor)
        np.testing.assert_array_equal(reader.decode_tensor(index).reshape(tensor.shape), tensor)


@pytest.mark.parametrize(
    ("contexts", "dtype", "digest"),
    [
        ("off", np.int8, 0xD2BD2CCF),
        ("auto", np.int8, 0x971701DB),
        ("auto", np.int16, 0xF0D6C324),
    ],
)
def test_golden_digest(contexts: Any, dtype: Any, digest: int) -> None:
    # The same on every machine. Another choice of classes or tables changes these numbers.
    tensors = [
        whole_numbers((3, 40, 33), 2, 1),
        whole_numbers((1, 70, 200), 9, 2),
        whole_numbers((9, 2, 64), 40, 3) * np.where(np.arange(64) < 20, 1, 0),
    ]
    tensors[1][:, ::3] //= 4
    if dtype == np.int16:
        tensors[2] *= 70
    words = encode_wide([tensor.astype(dtype) for tensor in tensors], contexts=contexts)
    assert zlib.crc32(words.astype("<u2").tobytes()) == digest


@pytest.mark.parametrize("make", [laplace, laplace16])
def test_blobs_do_not_depend_on_the_number_of_threads(make: Any) -> None:
    # Enough for several pieces of margins, counts, blocks and checksum.
    tensors = [make((3, 300, 700), 20, 1), make((1, 900, 384), 3, 2), make((2, 3, 5), 9, 3)]
    words = encode_wide(tensors, threads=1)
    assert int(words[2]) | int(words[3]) << 16 == zlib.crc32(words[4:].astype("<u2").tobytes())
    for threads in (2, 5):
        np.testing.assert_array_equal(encode_wide(tensors, threads=threads), words)
    for index, tensor in enumerate(tensors):
        np.testing.assert_array_equal(
            WideReader(words).decode_tensor(index).reshape(tensor.shape), tensor
        )


@pytest.mark.parametrize("contexts", ["off", "auto", "on"])
def test_classes_cut_off_at_both_ends(contexts: Any) -> None:
    # The rarest classes share the table of a neighbour with other thresholds.
    rows, columns = scaled_rows((1, 900, 40)), scaled_rows((1, 4, 700)).reshape(1, 700, 4)
    tensors = [rows, columns, laplace((1, 1, 3), 60, 1)]
    check_symbols(encode_wide(tensors, contexts=contexts), tensors)


@pytest.mark.parametrize("value", [-128, -1, 0, 127])
def test_constant_tensors(value: int) -> None:
    tensors = [np.full(shape, value, np.int8) for shape in ((1, 1, 1), (3, 70, 65), (40, 1, 1))]
    check_symbols(encode_wide(tensors), tensors)


def test_every_symbol_once_and_one_of_them_often() -> None:
    every = np.arange(-128, 128).astype(np.int8).reshape(1, 4, 64)
    often = np.where(np.arange(40_000) % 9_001 < 9_000, 5, 77).astype(np.int8).reshape(1, 40, 1000)
    check_symbols(encode_wide([every, often]), [every, often])


def test_blobs_outlive_what_they_came_from() -> None:
    tensors = [laplace((1, 50, 60), 4, 7)]
    expected = encode_wide(tensors).tobytes()
    tail = encode_wide(tensors)[6:]
    gc.collect()
    others = [encode_wide([laplace((1, 50, 60), 4, seed)]) for seed in range(8)]
    assert tail.tobytes() == expected[12:]
    assert tail.flags.writeable
    assert len({other.tobytes() for other in others}) == 8


@pytest.mark.parametrize("period", [2, 4, 16])
def test_classes_of_rows_that_repeat(period: int) -> None:
    """Only one row of each period has symbols, as in the blocks of a transform. Classes are chosen
    from a sample of the rows, which must not consist of one place of the period."""
    symbols = laplace((64, 512, 16), 3.0)
    symbols[:, np.arange(512) % period > 0] = 0
    dense = np.ascontiguousarray(symbols[:, ::period])
    assert encode_wide([symbols]).size < 1.1 * encode_wide([dense]).size
