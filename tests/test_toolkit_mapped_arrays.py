# SPDX-License-Identifier: Apache-2.0
"""Candidates of large models lie in mapped files, and are the same arrays there."""

from __future__ import annotations

from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from passes.schemes import Uniform
from tests.toolkit_models import mlp
from toolkit import compress, mapped_arrays
from toolkit.errors import OutputError
from toolkit.mapped_arrays import in_file, keeper, symbols_kept

LARGE = 1 << 17


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int16, ml_dtypes.bfloat16])
def test_arrays_in_files_are_the_same(dtype: type, cache: Path) -> None:
    array = (np.arange(LARGE) % 251).reshape(2, -1).T.astype(dtype)
    found = in_file(array)
    assert found.dtype == array.dtype and found.tobytes() == array.tobytes()
    assert found.base is not None and not found.flags.writeable
    assert list((cache / "onnx-weight-toolkit" / "candidates").iterdir()) == []  # without a name


def test_small_arrays_and_small_models_stay_in_memory() -> None:
    small, large = np.zeros(16, np.float32), np.zeros(LARGE, np.float32)
    assert in_file(small) is small
    assert keeper(mapped_arrays.MAPPED_FROM - 1)(large) is large
    assert keeper(mapped_arrays.MAPPED_FROM)(large) is not large


def test_parameters_keep_their_symbols() -> None:
    values = np.random.default_rng(0).standard_normal((256, 512)).astype(np.float32)
    fitted = Uniform(step=0.25).fit(values)
    kept = symbols_kept(fitted, in_file)
    assert np.array_equal(kept.decode(), fitted.decode())


def test_a_folder_that_cannot_be_written_to_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(OutputError, match="a candidate cannot be kept there"):
        in_file(np.zeros(LARGE, np.float32))


@pytest.mark.parametrize("calibrated", [False, True])
def test_files_are_the_same_wherever_candidates_lie(
    calibrated: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = mlp(tmp_path / "model.onnx")
    data = None
    if calibrated:
        data = tmp_path / "data.npz"
        np.savez(data, x=np.random.default_rng(1).standard_normal((64, 64)).astype(np.float32))
    sizes, seen = [], list[int]()
    real = in_file

    def counted(array: np.ndarray) -> np.ndarray:
        seen.append(array.nbytes)
        return real(array)

    monkeypatch.setattr(mapped_arrays, "in_file", counted)
    for bound in (1 << 40, 0):
        monkeypatch.setattr(mapped_arrays, "MAPPED_FROM", bound)
        monkeypatch.setattr(mapped_arrays, "_LEAST", 0)
        out = tmp_path / f"out{bound}.onnx"
        compress(path, out, calibration=data, min_sqnr=20.0)
        sizes.append(out.read_bytes())
        assert bool(seen) == (bound == 0)
    assert sizes[0] == sizes[1]
