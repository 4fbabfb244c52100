# SPDX-License-Identifier: Apache-2.0
"""The op library's CUDA code: how it is built, and what it says on a machine without a GPU."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from runtime import DeviceError, Status, WideReader, encode_wide
from runtime.gpu import DeviceDecoder, examine
from tests.wide_samples import laplace

SOURCES = Path(__file__).resolve().parent.parent / "runtime" / "csrc"
NVCC = shutil.which("nvcc")
MOST_SPILLED_BYTES = 64  # stores and loads of a kernel, together 16 registers
# Registers of a multiprocessor are 65536: 1024 threads of the first kernel share them, 2 blocks of
# 256 threads of the second, 4 of the third.
MOST_REGISTERS = {"wide_kernels": 64, "packed_matmul": 128, "packed_unpack": 64}


def test_the_state_is_told_without_an_error() -> None:
    state = examine()
    if state.built:
        assert "90" in state.architectures
        assert state.runtime_version >= 12080
    if state.num_devices == 0:
        assert state.problem
        assert state.total_bytes == 0
    else:
        assert state.problem == "" and state.total_bytes > 0


def test_a_missing_device_is_an_error_that_says_so() -> None:
    state = examine()
    reader = WideReader(encode_wide([laplace((1, 8, 8), 3)]))
    with pytest.raises(DeviceError) as caught:
        DeviceDecoder(reader, 0, device=state.num_devices)
    assert caught.value.code == Status.NO_DEVICE
    assert "no CUDA device" in str(caught.value)


def resources(source: str, device: int) -> dict[str, tuple[int, int, int]]:
    """Registers and spilled bytes, stored and loaded, of each kernel of a source, as ptxas reports
    them."""
    command = [
        *(
            str(NVCC),
            "-std=c++17",
            "-O3",
            "-cubin",
            f"-gencode=arch=compute_{device},code=sm_{device}",
        ),
        *("-Xptxas", "-v", "-Werror", "all-warnings", "-Xcompiler", "-Wall,-Wextra"),
        *("-I", str(SOURCES), "-I", str(SOURCES / "cuda"), "-o", "/dev/null"),
        str(SOURCES / "cuda" / f"{source}.cu"),
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=900)
    assert result.returncode == 0, result.stderr[-4000:]
    found = {}
    pattern = re.compile(
        r"Compiling entry function '(\S+)'.*?(\d+) bytes spill stores, (\d+) bytes spill loads"
        r".*?Used (\d+) registers",
        re.DOTALL,
    )
    for name, stores, loads, registers in pattern.findall(result.stderr):
        found[name] = int(registers), int(stores), int(loads)
    return found


@pytest.mark.skipif(NVCC is None, reason="there is no nvcc")
@pytest.mark.parametrize("device", [90, 100])
@pytest.mark.parametrize("source", sorted(MOST_REGISTERS))
def test_kernels_compile_without_warnings_and_keep_their_bounds(source: str, device: int) -> None:
    found = resources(source, device)
    assert found
    over = {
        name: use
        for name, use in found.items()
        if use[0] > MOST_REGISTERS[source] or max(use[1:]) > MOST_SPILLED_BYTES
    }
    assert not over


@pytest.mark.skipif(NVCC is None, reason="there is no nvcc")
def test_packed_weights_are_loaded_sixteen_eight_or_four_bytes_at_once(tmp_path: Path) -> None:
    """A warp's loads of a part of so many bits are then contiguous (packed_layout.h)."""
    made = tmp_path / "kernels.ptx"
    command = [
        *(str(NVCC), "-std=c++17", "-O3", "-ptx", "-arch=compute_90", "-I", str(SOURCES)),
        *("-I", str(SOURCES / "cuda"), "-o", str(made), str(SOURCES / "cuda/packed_matmul.cu")),
    ]
    subprocess.run(command, check=True, timeout=900)
    kernels = re.split(r"\.entry", made.read_text(encoding="utf-8"))[1:]
    assert len(kernels) == 16
    for kernel in kernels:
        match = re.search(r"multiply_packedILi(\d)", kernel)
        assert match is not None
        bits = int(match[1])
        widest = 1 << (bits.bit_length() - 1)
        widths = {1: "v4.u32", 2: "v2.u32", 4: "u32"}  # by how many times narrower a part is
        wanted = {widths[widest // part] for part in (1, 2, 4, 8) if bits & part}
        assert set(re.findall(r"ld\.global\.cs\.(\S+)", kernel)) == wanted
