# SPDX-License-Identifier: Apache-2.0
"""Sound, malformed and damaged blobs and models through decoders built with sanitizers: no fault.

The driver runs each blob with every instruction set of the processor, which must agree.
`make sanitize` builds the driver and names it in TOOLKIT_FUZZ_DRIVER.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from runtime import Status, encode_wide
from runtime.small import SmallCoder, encode_small
from tests.chain_models import CHAINS, source_nodes, with_reader
from tests.malformed_corpus import malformed_blobs
from tests.wide_reference_encoder import Words, with_checksum
from tests.wide_samples import laplace, laplace16, many_blocks, samples

DRIVER = os.environ.get("TOOLKIT_FUZZ_DRIVER")
DAMAGED_COPIES = 60
SMALL_CODERS: tuple[SmallCoder, ...] = ("adaptive", "huffman", "fixed")


def sound_wide_blobs() -> Iterator[tuple[str, Words]]:
    """Every feature once, and blobs of the real encoder that are long enough for its fast loops."""
    yield from ((sample.name, sample.encode()) for sample in samples())
    tensors = [laplace((70, 3, 64), 4, 1), laplace((40, 1, 90), 1, 2)]
    tensors[0][::2] //= 3
    yield "encoded", encode_wide(tensors, steps=300)
    yield "trellis", encode_wide([t // 2 for t in tensors], steps=300, trellis=[True, False])
    for name, spread in (("few_values", 0.6), ("many_values", 20)):
        blocks = many_blocks(laplace, spread)
        yield f"{name}_one_table", encode_wide(blocks, steps=60, contexts="off", classes=False)
        yield f"{name}_contexts", encode_wide(blocks, steps=60, contexts="on")
    blocks = many_blocks(laplace, 1.2)
    for block in blocks:
        block[abs(block) < 9] //= 3  # a few symbols lie far out
    yield "seldom_far", encode_wide(blocks, steps=60)
    yield "trellis_seldom_far", encode_wide(blocks, steps=60, trellis=[True] * len(blocks))
    halves = laplace16((66, 2, 70), 500, 3) // 2
    yield "trellis16", encode_wide([halves, halves // 9], steps=300, trellis=[True, True])
    yield "encoded16", encode_wide([laplace16((66, 2, 70), 500, 3)], steps=300)


def sound_small_blobs() -> Iterator[tuple[str, Words]]:
    for spread in (1, 40):
        stream = laplace16((1, 1, 700), spread, spread).reshape(-1)
        yield from ((f"{coder}{spread}", encode_small(stream, coder)) for coder in SMALL_CODERS)


def sound_models() -> Iterator[tuple[str, bytes]]:
    """Models of every chain that load mode knows in the library, and some that it does not."""
    for chain, make in CHAINS.items():
        for source in ("tensor", "range"):
            nodes, constants = source_nodes(np.int16, source)
            more, further = make(np.int16)
            proto = with_reader([*nodes, *more], {**constants, **further})
            yield chain.replace(" ", "_"), proto.SerializeToString()


def damaged_model(content: bytes, random: np.random.Generator) -> bytes:
    """A few bytes changed, or the end missing."""
    if random.random() < 0.2:
        return content[: int(random.integers(1, len(content)))]
    changed = bytearray(content)
    for _ in range(int(random.integers(1, 4))):
        changed[int(random.integers(len(content)))] = int(random.integers(256))
    return bytes(changed)


def damaged(words: Words, random: np.random.Generator) -> Words:
    """A few words of the body changed, under a checksum that fits."""
    changed = words.copy()
    for _ in range(int(random.integers(1, 4))):
        at = int(random.integers(6, words.size))
        if random.random() < 0.5:
            changed[at] ^= 1 << int(random.integers(16))
        else:
            changed[at] = random.choice([0, 1, 0x7FFF, 0x8000, 0xFFFF, random.integers(65536)])
    return with_checksum(changed)


@pytest.mark.skipif(DRIVER is None, reason="the sanitizer build is made by `make sanitize`")
def test_no_model_makes_a_fault(tmp_path: Path) -> None:
    random = np.random.default_rng(2)
    count = 0
    for name, content in sound_models():
        for number in range(DAMAGED_COPIES):
            file = tmp_path / f"{count:05d}_{name}"
            file.write_bytes(damaged_model(content, random) if number else content)
            count += 1
    result = subprocess.run(
        [str(DRIVER), str(tmp_path)], capture_output=True, text=True, check=False, timeout=900
    )
    assert result.returncode == 0, result.stderr[-4000:]
    statuses = [line.rsplit(" ", 1)[1] for line in result.stdout.splitlines()]
    assert len(statuses) == count and "0" in statuses


@pytest.mark.skipif(DRIVER is None, reason="the sanitizer build is made by `make sanitize`")
def test_no_blob_makes_a_fault(tmp_path: Path) -> None:
    expected: dict[str, tuple[str | None, str | None]] = {}

    def add(name: str, words: Words, wide: str | None, small: str | None) -> None:
        file_name = f"{len(expected):05d}_{name}"
        (tmp_path / file_name).write_bytes(words.astype("<u2").tobytes())
        expected[file_name] = wide, small

    for name, words, code in malformed_blobs():
        add(name, words, code, None)
    random = np.random.default_rng(1)
    for name, words in sound_wide_blobs():
        add(name, words, "TK_OK", "TK_ERR_CODER")
        for _ in range(DAMAGED_COPIES):
            add(f"{name}_damaged", damaged(words, random), None, None)
    for name, words in sound_small_blobs():
        add(name, words, "TK_ERR_CODER", "TK_OK")
        for _ in range(DAMAGED_COPIES):
            add(f"{name}_damaged", damaged(words, random), "TK_ERR_CODER", None)
    result = subprocess.run(
        [str(DRIVER), str(tmp_path)], capture_output=True, text=True, check=False, timeout=900
    )
    assert result.returncode == 0, result.stderr[-4000:]
    wrong = {}
    for line in result.stdout.splitlines():
        name, *numbers = line.rsplit(" ", 3)
        *found, model = (code_of(int(number)) for number in numbers)
        assert model == "TK_ERR_ARGUMENT"
        wanted = expected.pop(name)
        if any(want not in (None, code) for want, code in zip(wanted, found, strict=True)):
            wrong[name] = (wanted, *found)
    assert not wrong
    assert not expected, "the driver left blobs out"


def code_of(number: int) -> str:
    status = Status(number)
    return "TK_OK" if status == Status.OK else f"TK_ERR_{status.name}"
