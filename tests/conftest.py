# SPDX-License-Identifier: Apache-2.0
"""What all tests share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.ptx.compiled_kernels import NVCC, compile_once
from tests.ptx.cuda_runtime import PtxDevice


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keeps what a test measures out of the user's cache folder."""
    folder = tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setattr("toolkit.moment_store.cache_folder", lambda name: folder)
    return folder


@pytest.fixture(scope="session")
def ptx_device(request: pytest.FixtureRequest) -> PtxDevice:
    """The library's CUDA code on the PTX machine; compiled once for all processes of a run, and
    kept in pytest's cache for as long as the sources are the same."""
    if NVCC is None:
        pytest.skip("there is no nvcc, which compiles the kernels to PTX")
    return PtxDevice(compile_once(Path(request.config.cache.mkdir("ptx"))))
