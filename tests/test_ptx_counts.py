# SPDX-License-Identifier: Apache-2.0
"""The counts of benchmarks.cuda_counts."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from benchmarks import cuda_counts
from tests.ptx.counters import total
from tests.ptx.cuda_runtime import PtxDevice


def test_a_step_of_the_decoder_is_counted(
    ptx_device: PtxDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lookup a symbol in direct tables and two in paired ones; whole sectors are written, and of
    code words no more are read than there are."""
    monkeypatch.setattr(cuda_counts, "COLUMNS", 64)
    options = cuda_counts.WAYS["one table"]
    direct, paired = (
        cuda_counts.decoder_counts(ptx_device, 90, options, layout)
        for layout in ("direct", "paired")
    )
    for found in (direct, paired):
        assert found["of_global store"] == 1
        assert found["of_global store bytes"] == 32
        assert found["instructions"] > 20
        assert found["instructions"] == pytest.approx(sum(found[g] for g in cuda_counts.GROUPS))
    assert 1 < found["bits"] < 4
    steps = 2 * cuda_counts.COLUMNS
    loads = [total(found["shared"], "load").requests for found in (direct, paired)]
    assert loads[0] > steps
    assert loads[1] == loads[0] + steps
    assert paired["instructions"] > direct["instructions"]


def test_bytes_of_a_product_are_counted(
    ptx_device: PtxDevice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cuda_counts, "INPUTS", 512)
    found = cuda_counts.product_counts(ptx_device, 90, "uniform")
    weights = found["of_global"]["load v4.u32"].bytes / (16 * 512 / 32)
    assert weights == cuda_counts.BITS / 8 * 32 + 4  # and eight values of x for each four lanes
    assert found["float, tensor"] > 0


def test_without_nvcc_there_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_counts, "NVCC", None)
    result = CliRunner().invoke(cuda_counts.main, [])
    assert result.exit_code == 1
    assert "no nvcc" in str(result.exception or result.output)
