# SPDX-License-Identifier: Apache-2.0
"""What all tests share."""

from __future__ import annotations

import functools
import os
from pathlib import Path

import pytest

from tests.ptx.compiled_kernels import NVCC, compile_once, load_module
from tests.ptx.cuda_runtime import PtxDevice


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keeps what a test measures out of the user's cache folder."""
    folder = tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setattr("toolkit.moment_store.cache_folder", lambda name: folder)
    return folder


@pytest.fixture(scope="session")
def ptx_device(tmp_path_factory: pytest.TempPathFactory) -> PtxDevice:
    """The library's CUDA code on the PTX machine; compiled once for all processes of a run."""
    if NVCC is None:
        pytest.skip("there is no nvcc, which compiles the kernels to PTX")
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "ptx"
    return PtxDevice(compile_once(folder), functools.partial(load_module, folder))
