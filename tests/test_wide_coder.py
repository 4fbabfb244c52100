# SPDX-License-Identifier: Apache-2.0
"""The C++ wide coder with every instruction set, against the oracle and the reference encoder."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime import CodecError, Status, WideReader, encode_wide
from runtime.oracle import decode_matrix, decode_segment
from runtime.wide import Isa, best_isa
from tests.malformed_corpus import Case, malformed_blobs
from tests.wide_reference_encoder import TableSet, Tensor, encode_segment
from tests.wide_samples import Sample, laplace, laplace16, many_blocks, samples

ISAS: list[Isa] = [isa for isa in get_args(Isa) if isa != "auto"]
MALFORMED = list(malformed_blobs())


def tensor_of(reader: WideReader, index: int, shape: tuple[int, ...], isa: Isa) -> Any:
    """A tensor in its own shape: the encoder may store its rows under other A and B."""
    return reader.decode_tensor(index, isa=isa).reshape(shape)


def supported(isa: Isa) -> Isa:
    if ISAS.index(isa) > ISAS.index(best_isa()):
        pytest.skip(f"this processor has no {isa}")
    return isa


def check_blob(words: npt.NDArray[np.uint16], isa: Isa) -> None:
    """Matrix and tensors of a blob are those of the oracle."""
    reader = WideReader(words)
    for threads in (1, 3):
        matrix = reader.decode_all(threads=threads, isa=isa)
        np.testing.assert_array_equal(matrix, decode_matrix(words))
        for found, expected in zip(
            reader.decode_tensors(threads=threads, isa=isa), decode_segment(words), strict=True
        ):
            np.testing.assert_array_equal(found, expected)
    for index, expected in enumerate(decode_segment(words)):
        found = reader.decode_tensor(index, isa=isa)
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("sample", list(samples()), ids=lambda s: s.name)
def test_samples_decode_as_in_the_oracle(sample: Sample, isa: Isa) -> None:
    check_blob(sample.encode(), supported(isa))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("contexts", [1, 5])
@pytest.mark.parametrize("base", [-32768, -300, -128, 127, 128, 300, 32767])
def test_class_bases_at_the_ends_of_their_range(base: int, contexts: int, isa: Isa) -> None:
    classes = (np.arange(50) % 256 * 5 - 128).astype(np.int8)
    tensor = Tensor(laplace((35, 1, 50), 3), class_c=classes, class_base=base)
    check_blob(encode_segment([tensor], [TableSet(contexts, 3)]), supported(isa))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", [np.int8, np.int16])
def test_encoded_tensors_come_back(dtype: Any, isa: Isa) -> None:
    supported(isa)
    make = laplace if dtype == np.int8 else laplace16
    shapes = [(70, 3, 40), (1, 1, 1), (33, 1, 65), (5, 200, 9), (1, 1, 3000)]
    tensors = [make(shape, 3 if number % 2 else 30, number) for number, shape in enumerate(shapes)]
    tensors[2][4:9] *= 4
    reader = WideReader(encode_wide(tensors))
    for index, tensor in enumerate(tensors):
        np.testing.assert_array_equal(tensor_of(reader, index, tensor.shape, isa), tensor)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("spread", [0.6, 20])
@pytest.mark.parametrize("make", [laplace, laplace16])
@pytest.mark.parametrize(("contexts", "classes"), [("off", False), ("off", True), ("on", True)])
def test_more_blocks_than_are_decoded_side_by_side(
    make: Any, spread: float, contexts: Any, classes: bool, isa: Isa
) -> None:
    tensors = many_blocks(make, spread)
    words = encode_wide(tensors, steps=60, contexts=contexts, classes=classes)
    assert WideReader(words).info.num_blocks > 16
    check_blob(words, supported(isa))
    trellis = [number % 2 == 0 for number in range(len(tensors))]
    halves = [(t // 2).astype(t.dtype) for t in tensors]
    check_blob(encode_wide(halves, steps=60, contexts=contexts, trellis=trellis), isa)


@pytest.mark.parametrize("contexts", ["off", "auto", "on"])
@pytest.mark.parametrize("classes", [False, True])
def test_the_oracle_reads_what_the_encoder_writes(contexts: Any, classes: bool) -> None:
    tensors = [laplace((40, 3, 20), 5, 1), laplace((9, 1, 50), 1, 2)]
    tensors[0][::3] *= 5
    words = encode_wide(tensors, contexts=contexts, classes=classes, steps=100)
    for found, expected in zip(decode_segment(words), tensors, strict=True):
        np.testing.assert_array_equal(found.reshape(expected.shape), expected)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(*[st.integers(1, 9)] * 3), min_size=1, max_size=4),
    st.integers(0, 2**32 - 1),
    st.sampled_from([0.3, 3.0, 60.0, 3000.0]),
    st.booleans(),
)
def test_any_tensors_come_back(
    shapes: list[tuple[int, ...]], seed: int, spread: float, wide: bool
) -> None:
    random = np.random.default_rng(seed)
    limits = np.iinfo(np.int16 if wide else np.int8)
    tensors = [
        np.clip(np.rint(random.laplace(0, spread, shape)), limits.min, limits.max).astype(
            limits.dtype
        )
        for shape in shapes
    ]
    words = encode_wide(tensors)
    reader = WideReader(words)
    for index, tensor in enumerate(tensors):
        np.testing.assert_array_equal(tensor_of(reader, index, tensor.shape, "auto"), tensor)
    np.testing.assert_array_equal(reader.decode_all(), decode_matrix(words))


@pytest.mark.parametrize("isa", ISAS)
def test_malformed_blobs_are_refused_with_their_code(isa: Isa) -> None:
    supported(isa)
    assert [wrong for wrong in (_wrong(case, isa) for case in MALFORMED) if wrong] == []


def _wrong(case: Case, isa: Isa) -> tuple[str, str, str] | None:
    name, words, code = case
    try:
        WideReader(words).decode_all(isa=isa)
    except CodecError as error:
        found = f"TK_ERR_{error.code.name}"
    else:
        found = "none"
    return None if found == code else (name, code, found)


def test_tensors_that_do_not_fit_one_segment_are_refused() -> None:
    tensors = [np.zeros((1, 1, 3_000_000), np.int8), np.zeros((200_000, 1, 32), np.int8)]
    with pytest.raises(CodecError) as caught:
        encode_wide(tensors, steps=256)
    assert caught.value.code == Status.ARGUMENT
