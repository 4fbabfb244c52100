# SPDX-License-Identifier: Apache-2.0
"""Small alphabets, whose symbols the AVX-512 decoder finds in search trees, against the oracle.

Trees have 16 leaves, of which the outermost ones may stand for symbols that seldom occur, and a set
has at most 32 of one kind or 64 of another; the cases lie on both sides of these limits.
"""

from __future__ import annotations

from itertools import product
from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import pytest

from runtime import WideReader, encode_wide
from runtime.oracle import decode_segment
from runtime.wide import Isa, best_isa
from tests.wide_reference_encoder import TableSet, Tensor, encode_segment

ISAS: list[Isa] = [isa for isa in get_args(Isa) if isa != "auto"]


def check(words: npt.NDArray[np.uint16]) -> None:
    """Every instruction set of this processor decodes what the oracle decodes."""
    expected = decode_segment(words)
    reader = WideReader(words)
    for isa in ISAS[: ISAS.index(best_isa()) + 1]:
        for index, tensor in enumerate(expected):
            np.testing.assert_array_equal(reader.decode_tensor(index, isa=isa), tensor, str(isa))


def few_values(
    shape: tuple[int, int, int], lowest: int, values: int, dtype: Any = np.int8, seed: int = 0
) -> npt.NDArray[Any]:
    """Symbols lowest ... lowest + values - 1, each at least once, the middle ones often."""
    rng = np.random.default_rng(seed)
    symbols = (
        rng.binomial(values - 1, 0.5, shape) + lowest if values > 1 else np.full(shape, lowest)
    )
    every = np.arange(lowest, lowest + values)[: symbols.size]
    symbols.reshape(-1)[: every.size] = every
    return symbols.astype(dtype)


@pytest.mark.parametrize("values", [1, 2, 3, 15, 16, 17, 40])
@pytest.mark.parametrize("lowest", [-128, -7, 0, 88])
@pytest.mark.parametrize("contexts", [1, 5])
def test_alphabets_of_every_size(values: int, lowest: int, contexts: int) -> None:
    tensor = Tensor(few_values((37, 1, 70), lowest, values), rows_per_lane=1)
    check(encode_segment([tensor], [TableSet(contexts)]))


@pytest.mark.parametrize("trellis", [False, True])
@pytest.mark.parametrize(
    ("classes", "contexts"),
    [(1, 5), (3, 5), (4, 5), (6, 5), (7, 5), (12, 5), (13, 5), (16, 1), (32, 1), (33, 1), (64, 1)],
)
def test_as_many_tables_as_a_set_may_have_trees_and_more(
    classes: int, contexts: int, trellis: bool
) -> None:
    rng = np.random.default_rng(classes)
    rows = rng.integers(0, classes, 90).astype(np.int8)
    columns = rng.integers(-1, 2, 45).astype(np.int8)
    symbols = np.rint(rng.normal(0, 0.2 + rows[:, None, None] / 20, (90, 1, 45)))
    symbols = np.clip(symbols, -7, 7).astype(np.int8)
    for class_c in (None, columns):
        tensor = Tensor(symbols, rows_per_lane=2, class_a=rows, class_c=class_c)
        check(encode_segment([tensor], [TableSet(contexts, classes, trellis=trellis)]))


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("trellis", [False, True])
@pytest.mark.parametrize(("classes", "contexts"), [(1, 1), (3, 5), (12, 1), (6, 5)])
@pytest.mark.parametrize("share", [0.0005, 0.002, 0.03])
def test_symbols_outside_of_the_leaves(
    share: float, classes: int, contexts: int, trellis: bool, wide: bool
) -> None:
    # From so rare that trees are used, several in one step among them, to too frequent.
    rng = np.random.default_rng(classes)
    rows = rng.integers(0, classes, 300).astype(np.int8)
    symbols = np.rint(rng.normal(0, 0.2 + rows[:, None, None] / 20, (300, 1, 70)))
    outer = rng.random(symbols.shape) < share
    symbols[outer] = rng.integers(-60, 61, symbols.shape)[outer]
    symbols[40:44, 0, 33] = [-63, 63, 62, -20]
    symbols[-1, 0, -1] = 63
    symbols = symbols.astype(np.int16 if wide else np.int8)
    tensors = [
        Tensor(symbols, rows_per_lane=2, class_a=rows, class_c=np.arange(70).astype(np.int8) % 2),
        Tensor(symbols[::-1].copy(), class_a=rows[::-1].copy()),
    ]
    check(encode_segment(tensors, [TableSet(contexts, classes, trellis=trellis)], wide=wide))


@pytest.mark.parametrize("low_bits", [0, 1, 4, 8])
@pytest.mark.parametrize("trellis", [False, True])
@pytest.mark.parametrize("contexts", [1, 5])
def test_symbols_of_16_bits_with_raw_low_bits(low_bits: int, trellis: bool, contexts: int) -> None:
    symbols = few_values((50, 1, 33), -(3 << low_bits), 7 << low_bits, np.int16)
    tensor = Tensor(symbols, low_bits=low_bits)
    check(encode_segment([tensor], [TableSet(contexts, trellis=trellis)], wide=True))


@pytest.mark.parametrize(("lanes", "columns"), list(product([1, 5, 32, 33, 70], [1, 63, 64, 129])))
def test_lanes_and_lines_of_every_length(lanes: int, columns: int) -> None:
    tensors = [few_values((lanes, 1, columns), -4, 9, seed=seed) for seed in range(3)]
    for contexts, classes in product(("off", "on"), (False, True)):
        check(encode_wide(tensors, contexts=contexts, classes=classes))  # type: ignore[arg-type]
    check(encode_wide(tensors, trellis=[False, True, True]))


def test_trees_and_slots_side_by_side() -> None:
    # Sets and tensors of the same mode, of which some have trees and some have too many symbols.
    tensors = [few_values((64, 1, 100), -v // 2, v, seed=v) for v in (5, 60, 9, 120)]
    segment = [Tensor(t, table_set=i) for i, t in enumerate(tensors)]
    for contexts in (1, 5):
        check(encode_segment(segment, [TableSet(contexts)] * 4))
