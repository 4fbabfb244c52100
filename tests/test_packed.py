# SPDX-License-Identifier: Apache-2.0
"""Packed weights and products with them, as the GPU's tensor cores compute, on the host."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime import CodecError
from runtime.packed import BITS, PackedProduct, pack_fields, unpack_fields
from tests.packed_samples import PackedSample, expected_words, make_sample, packed_samples

COMPILER = shutil.which("g++")


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize(("outputs", "inputs"), [(1, 1), (16, 128), (37, 300), (200, 65)])
def test_fields_come_back(outputs: int, inputs: int, bits: int) -> None:
    fields = np.random.default_rng(0).integers(0, 1 << bits, (outputs, inputs)).astype(np.uint8)
    packed = pack_fields(fields, bits)
    np.testing.assert_array_equal(packed, expected_words(fields, bits))
    np.testing.assert_array_equal(unpack_fields(packed, outputs, inputs, bits), fields)


@pytest.mark.parametrize("bits", BITS)
def test_a_field_takes_no_more_than_its_bits(bits: int) -> None:
    outputs, inputs = 48, 3 * 256
    assert pack_fields(np.zeros((outputs, inputs), np.uint8), bits).nbytes * 8 == (
        outputs * inputs * bits
    )


@pytest.mark.parametrize("sample", list(packed_samples()), ids=lambda s: s.name)
@pytest.mark.parametrize("batch", [1, 8, 11])
def test_products_are_those_of_the_weight(sample: PackedSample, batch: int) -> None:
    x = sample.x_of(batch)
    sample.check(x, sample.product.emulate(x, **sample.arrays))


@pytest.mark.parametrize("kind", [np.float32, np.float16])
@pytest.mark.parametrize("sample", list(packed_samples()), ids=lambda s: s.name)
def test_weights_are_unpacked_exactly(sample: PackedSample, kind: Any) -> None:
    found = sample.product.unpack(**sample.arrays_to_unpack(kind))
    assert found.dtype == kind
    np.testing.assert_array_equal(found, sample.weight.astype(np.float32).astype(kind))


def test_unpacking_that_contradicts_itself_is_refused() -> None:
    sample = make_sample(16, 128, 4, "zeros")
    scales = sample.arrays["scales"]
    for product, more in (
        (PackedProduct(16, 128, 4), {}),
        (PackedProduct(16, 128, 4), {"zeros": scales, "codebook": scales}),
        (PackedProduct(16, 128, 4, 48), {"zeros": scales}),
        (PackedProduct(16, 128, 9), {"zeros": scales}),
    ):
        with pytest.raises(CodecError):
            product.unpack(packed=sample.arrays["packed"], scales=scales, **more)


@pytest.mark.parametrize("inputs", [256, 130])
def test_rows_of_x_may_begin_anywhere(inputs: int) -> None:
    sample = make_sample(18, inputs, 3, "zeros", 64)
    x = sample.x_of(9)
    places = np.zeros(x.size + 8, np.float16)
    for first in range(1, 8):
        moved = places[first : first + x.size].reshape(x.shape)
        moved[:] = x
        sample.check(x, sample.product.emulate(moved, **sample.arrays))


def test_what_cannot_be_packed_is_refused() -> None:
    with pytest.raises(CodecError):
        pack_fields(np.full((2, 8), 4, np.uint8), 2)
    with pytest.raises(CodecError):
        pack_fields(np.zeros((2, 8), np.uint8), 9)
    with pytest.raises(CodecError):
        unpack_fields(np.zeros(127, np.uint32), 16, 64, 4)


def test_products_that_contradict_themselves_are_refused() -> None:
    sample = make_sample(16, 128, 4, "uniform")
    x = sample.x_of(2)
    sample.product.emulate(x, **sample.arrays)
    for wrong in (
        PackedProduct(16, 128, 0, 0, 0),
        PackedProduct(16, 128, 9, 0, 4),
        PackedProduct(16, 128, 4, 48, 8),
        PackedProduct(16, 128, 4, 0, 256),
    ):
        with pytest.raises(CodecError):
            wrong.emulate(x, **sample.arrays)
    both = {**sample.arrays, "zeros": sample.arrays["scales"], "codebook": x}
    with pytest.raises(CodecError):
        sample.product.emulate(x, **both)


@pytest.mark.skipif(COMPILER is None, reason="there is no g++")
def test_no_access_is_outside_of_memory(tmp_path: Path) -> None:
    """What the device compiles, too, in memory of exactly its size, also where x lies askew."""
    csrc = Path(__file__).resolve().parent.parent / "runtime" / "csrc"
    driver = csrc.parent.parent / "tests" / "sanitize" / "packed_driver.cpp"
    sources = (
        "cuda/packed_weights.cpp",
        "cuda/packed_unpack.cpp",
        "threads.cpp",
        "worker_pool.cpp",
    )
    command = [
        *(str(COMPILER), "-std=c++17", "-O1", "-Wall", "-Wextra", "-Werror", "-ffp-contract=off"),
        *("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-I", str(csrc)),
        *("-I", str(csrc / "cuda"), *(str(csrc / name) for name in sources), str(driver)),
        *("-o", str(tmp_path / "driver"), "-lpthread"),
    ]
    subprocess.run(command, check=True, timeout=300)
    result = subprocess.run(
        [str(tmp_path / "driver")], capture_output=True, text=True, check=False, timeout=300
    )
    assert (result.returncode, result.stdout) == (0, "done\n"), result.stderr[-2000:]
