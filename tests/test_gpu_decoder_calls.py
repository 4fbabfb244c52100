# SPDX-License-Identifier: Apache-2.0
"""Decoders on a device, on a CUDA runtime whose device is the host: what they ask it for, in which
order, and what is left where a call fails."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
from pathlib import Path

import pytest

from runtime import CodecError, WideReader
from runtime.library import library_path
from tests.malformed_corpus import malformed_blobs
from tests.wide_samples import samples

ROOT = Path(__file__).resolve().parent.parent
NVCC = shutil.which("nvcc")
pytestmark = pytest.mark.skipif(NVCC is None, reason="there is no nvcc, which has CUDA's headers")
SOURCES = (
    "device_decoder.cu",
    "device_blob.cu",
    "device_problem.cu",
    "decode_plan.cpp",
    "launch_geometry.cpp",
    "output_request.cpp",
    "emulate.cpp",
)


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    cuda, made = ROOT / "runtime" / "csrc" / "cuda", tmp_path_factory.mktemp("driver") / "driver"
    library = Path(library_path())
    command = [
        *(str(NVCC), "-std=c++17", "-O1", "-x", "c++", "-cudart", "none", "-Xcompiler"),
        "-Wall,-Wextra,-Werror,-fsanitize=address,-fsanitize=undefined",
        *('-DTOOLKIT_CUDA_ARCHITECTURES="none"', "-I", str(cuda.parent), "-I", str(cuda)),
        *(str(cuda / name) for name in SOURCES),
        *(str(ROOT / "tests/sanitize/device_decoder_driver.cpp"), "-o", str(made)),
        *("-L", str(library.parent), f"-l{library.stem.removeprefix('lib')}"),
        *("-Xlinker", f"-rpath={library.parent}", "-lpthread"),
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert result.returncode == 0, result.stderr[-2000:]
    return made


def run(driver: Path, folder: Path, blobs: dict[str, bytes]) -> list[tuple[str, int, int, bool]]:
    """Name, tensor, status of the decoder, and whether its values are the host's."""
    for name, blob in blobs.items():
        (folder / name).write_bytes(blob)
    result = subprocess.run(
        [str(driver), *blobs], capture_output=True, text=True, check=False, timeout=600, cwd=folder
    )
    assert result.returncode == 0, result.stderr[-2000:]
    rows = [line.split() for line in result.stdout.splitlines()]
    return [(name, int(n), int(status), equal == "1") for name, n, status, equal in rows]


def test_decoders_wait_for_their_memory_and_leave_none(driver: Path, tmp_path: Path) -> None:
    """Runs allocate nothing and wait for nothing, so that they can be captured in a graph; values
    are those of the host."""
    encoded = {sample.name: sample.encode() for sample in samples()}
    found = run(driver, tmp_path, {name: words.tobytes() for name, words in encoded.items()})
    assert found == [
        (name, tensor, 0, True)
        for name, words in encoded.items()
        for tensor in range(-2, len(WideReader(words).tensors))
    ]


def test_what_does_not_decode_is_in_the_status(driver: Path, tmp_path: Path) -> None:
    broken: dict[str, bytes] = {}
    for name, words, code in malformed_blobs():
        with contextlib.suppress(CodecError):  # that are refused before
            WideReader(words)
            if code == "TK_ERR_STREAM":
                broken[name] = words.tobytes()
    found = run(driver, tmp_path, broken)
    assert len(broken) > 2
    for tensor in (-2, -1):
        of_all = {(name, status) for name, number, status, _ in found if number == tensor}
        assert of_all == {(name, 10) for name in broken}
