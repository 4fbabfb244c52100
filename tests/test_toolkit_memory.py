# SPDX-License-Identifier: Apache-2.0
"""What a run holds at a time: no second copy of a model, and nothing after its use."""

from __future__ import annotations

import gc
import platform
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest

from tests.test_toolkit_cli import run
from tests.toolkit_models import embedding, mlp
from toolkit.compare_models import compare
from toolkit.compress_model import compress
from toolkit.expand_model import expand
from toolkit.model_check import AnyModel
from toolkit.pipeline import read_source

LARGE_BLOCKS = """
import ctypes, sys
import numpy as np
from toolkit.memory import map_large_blocks

class Info(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in ("arena", "ordblks", "smblks", "hblks",
        "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")]

library = ctypes.CDLL(None)
library.mallinfo2.restype = Info
if sys.argv[1] == "mapped":
    map_large_blocks()
np.empty(24 << 20, np.uint8)  # freed at once: from here on glibc takes such blocks from its heap
before = library.mallinfo2().hblks
kept = np.empty(8 << 20, np.uint8)
print(library.mallinfo2().hblks - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_large_blocks_go_back_to_the_system() -> None:
    found = {
        how: subprocess.run(
            [sys.executable, "-c", LARGE_BLOCKS, how], capture_output=True, text=True, check=True
        ).stdout.strip()
        for how in ("mapped", "as it is")
    }
    assert found == {"mapped": "1", "as it is": "0"}


def test_the_commands_map_large_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called = []
    monkeypatch.setattr("toolkit.memory.map_large_blocks", lambda: called.append(1))
    assert run("inspect", mlp(tmp_path / "m.onnx")).exit_code == 0
    assert called


def test_reading_copies_each_weight_once(tmp_path: Path) -> None:
    path = mlp(tmp_path / "m.onnx", width=40_000)
    read_source(mlp(tmp_path / "warm.onnx"))  # imports
    tracemalloc.start()
    try:
        source = read_source(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1.5 * source.num_bytes  # 1.2; 1.8 with the file kept or weights copied twice


def test_without_a_search_the_session_holds_no_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from toolkit import evaluator

    sizes = []
    session_of = evaluator.session_of

    def spy(model: ir.Model, options: Any) -> Any:
        sizes.append(len(ir.to_proto(model).SerializeToString()))
        return session_of(model, options)

    monkeypatch.setattr(evaluator, "session_of", spy)
    compress(mlp(tmp_path / "m.onnx", width=600), bits=4)
    assert len(sizes) == 1
    assert sizes[0] < 1000


def test_the_compressed_model_is_gone_when_the_file_is_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from toolkit import verify

    alive: list[int] = []
    run_original = verify.run_original

    def spy(*arguments: Any) -> Any:
        alive.append(sum(isinstance(thing, ir.Model) for thing in gc.get_objects()))
        return run_original(*arguments)

    monkeypatch.setattr(verify, "run_original", spy)
    path = mlp(tmp_path / "m.onnx")
    gc.collect()
    before = sum(isinstance(thing, ir.Model) for thing in gc.get_objects())
    compress(path, bits=4)
    assert alive == [before]


def test_compared_files_are_gone_when_they_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from toolkit import compare_models

    alive: list[int] = []
    session = compare_models._session

    def spy(*arguments: Any) -> Any:
        alive.append(sum(isinstance(thing, AnyModel) for thing in gc.get_objects()))
        return session(*arguments)

    monkeypatch.setattr(compare_models, "_session", spy)
    path = mlp(tmp_path / "m.onnx")
    compare(path, path)
    assert alive == [0, 0]


def test_expanding_lets_go_of_each_weight(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from toolkit import verify

    path, small = mlp(tmp_path / "m.onnx"), tmp_path / "s.onnx"
    compress(path, small, bits=4)
    values: list[Any] = []
    decode, serialize = verify.run_decoder, ir.serde.serialize_tensor
    left = []

    def decoded(*arguments: Any) -> list[Any]:
        values[:] = decode(*arguments)
        return values

    def serialized(tensor: Any) -> Any:
        left.append(len(values))
        return serialize(tensor)

    monkeypatch.setattr(verify, "run_decoder", decoded)
    monkeypatch.setattr(ir.serde, "serialize_tensor", serialized)
    expand(small, tmp_path / "p.onnx")
    assert left[:2] == [1, 0]
    monkeypatch.undo()
    found = compare(small, tmp_path / "p.onnx").fidelity
    assert np.isinf(found.sqnr_db)


PEAK = """
import sys
from pathlib import Path
from toolkit.compress_model import compress
from toolkit.memory import map_large_blocks

map_large_blocks()
compress(sys.argv[1], sys.argv[2], jobs=1)
for line in Path("/proc/self/status").read_text().splitlines():
    if line.startswith("VmHWM"):
        print(int(line.split()[1]) << 10)
"""


@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="peaks are read from /proc")
def test_a_run_holds_a_model_and_its_candidate(tmp_path: Path) -> None:
    """Two models that differ in the length of one table: the peak is higher by less than three and
    a half times the difference, which is reading a file, its message and the weights."""
    peaks, sizes = [], []
    for rows in (1000, 200_000):
        path = embedding(tmp_path / f"{rows}.onnx", rows)
        arguments = [sys.executable, "-c", PEAK, str(path), str(tmp_path / "out.onnx")]
        found = subprocess.run(arguments, capture_output=True, text=True, check=True)
        peaks.append(int(found.stdout))
        sizes.append(path.stat().st_size)
    assert peaks[1] - peaks[0] < 3.5 * (sizes[1] - sizes[0])
