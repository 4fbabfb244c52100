# SPDX-License-Identifier: Apache-2.0
"""Launch geometry and shared memory of the GPU's decoder: host code, no GPU needed."""

from __future__ import annotations

import numpy as np
import pytest

from runtime import WideReader, encode_wide
from runtime.gpu_output import LAYOUTS, Layout, plan
from tests.wide_samples import laplace, samples

WARP_BYTES = 3 * 128 * 2 + 32 * 11 * 4
MOST_WARPS, COPYING_WARPS = 32, 8
# Multiprocessors and shared memory of a thread block: T4, A100, RTX 3090, H200.
DEVICES = [(40, 65536), (108, 166912), (82, 101376), (132, 232448)]


@pytest.fixture(scope="module")
def reader() -> WideReader:
    random = np.random.default_rng(0)
    spread = np.exp(random.normal(0, 0.6, (768, 1))) * np.exp(random.normal(0, 0.4, (1, 768)))
    values = np.clip(np.rint(random.laplace(0, 2.0, (768, 768)) * spread), -127, 127)
    return WideReader(encode_wide([values.astype(np.int8)[None]], steps=64))


@pytest.mark.parametrize(("multiprocessors", "shared_bytes"), DEVICES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_launches_keep_the_limits_of_the_device(
    reader: WideReader, layout: Layout, multiprocessors: int, shared_bytes: int
) -> None:
    info = plan(
        reader, 0, layout=layout, multiprocessors=multiprocessors, shared_bytes=shared_bytes
    )
    if info.grid == 0:
        assert layout in ("direct", "paired")  # a table of 4 KiB or more each
        return
    assert info.shared_bytes <= shared_bytes
    assert 1 <= info.warps <= MOST_WARPS
    assert 1 <= info.grid <= multiprocessors
    if info.warps > COPYING_WARPS:  # else some may have nothing to decode
        assert info.grid * info.warps <= info.num_blocks + info.warps - 1
    assert info.grid <= info.num_blocks


@pytest.mark.parametrize(
    ("layout", "bytes_of_slots"), [("direct", 0), ("paired", 4096), ("buckets", 256)]
)
def test_shared_memory_is_what_its_parts_take(
    reader: WideReader, layout: Layout, bytes_of_slots: int
) -> None:
    info = plan(reader, 0, layout=layout, shared_bytes=1 << 20)
    entries = info.span if layout == "paired" else info.entries
    stride = 4 * 4096 if layout == "direct" else bytes_of_slots + 4 * (entries | 1)
    tables = -(-stride * info.tables // 16) * 16
    assert info.shared_bytes == info.record_bytes + tables + info.warps * WARP_BYTES


def test_few_blocks_are_spread_over_the_multiprocessors() -> None:
    reader = WideReader(encode_wide([laplace((3200, 1, 64), 2)], contexts="off", steps=64))
    assert reader.info.num_blocks == 100
    info = plan(reader, 0)
    assert (info.grid, info.warps) == (100, COPYING_WARPS)  # of which one decodes
    info = plan(reader, 0, multiprocessors=30)
    assert (info.grid, info.warps) == (25, COPYING_WARPS)
    info = plan(reader, 0, multiprocessors=11)
    assert (info.grid, info.warps) == (10, 10)


def test_many_blocks_fill_every_multiprocessor(reader: WideReader) -> None:
    assert reader.info.num_blocks == 24
    info = plan(reader, 0, multiprocessors=2)
    assert (info.grid, info.warps) == (2, 12)
    info = plan(reader, 0, multiprocessors=1)
    assert (info.grid, info.warps) == (1, 24)


def test_warps_take_turns_evenly() -> None:
    reader = WideReader(encode_wide([laplace((32 * 70, 1, 64), 2)], contexts="off", steps=64))
    assert reader.info.num_blocks == 70
    info = plan(reader, 0, multiprocessors=1)
    assert info.warps == 24  # three turns of 24, 24 and 22, not of 32, 32 and 6


def test_tables_are_laid_out_for_the_room_there_is(reader: WideReader) -> None:
    found = [plan(reader, 0, shared_bytes=size).layout for size in (232448, 101376, 65536, 8192)]
    assert plan(reader, 0).tables > 8
    assert found == sorted(found)
    assert found[0] == LAYOUTS["paired"]
    assert found[-1] == LAYOUTS["global"]


def test_no_geometry_where_not_even_one_warp_fits(reader: WideReader) -> None:
    assert plan(reader, 0, shared_bytes=1024).grid == 0


def test_tensors_that_go_the_same_way_share_their_tables() -> None:
    sample = next(s for s in samples() if s.name == "most_tables")
    reader = WideReader(sample.encode())
    plans = [plan(reader, tensor) for tensor in range(len(reader.tensors))]
    alike = [(info.tables, info.image_bytes) for info in plans]
    assert alike[0] == alike[2] and alike[1] == alike[3]
    assert 1 == alike[1][0] < alike[0][0] < 256
    assert plans[0].num_blocks > plans[2].num_blocks  # each launch has its own blocks
