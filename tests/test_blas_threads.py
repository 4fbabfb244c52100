# SPDX-License-Identifier: Apache-2.0
"""BLAS has one thread while weights are fitted, and its own number afterwards."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from toolkit.blas_threads import one_blas_thread

threadpoolctl = pytest.importorskip("threadpoolctl")


def counts() -> set[int]:
    return {
        entry["num_threads"]
        for entry in threadpoolctl.threadpool_info()
        if entry["user_api"] == "blas"
    }


def test_the_first_to_enter_gives_the_threads_back() -> None:
    with threadpoolctl.threadpool_limits(2, "blas"):
        before = counts()

        def other() -> None:
            with one_blas_thread():
                assert counts() == {1}

        with one_blas_thread():
            with ThreadPoolExecutor(1) as pool:
                pool.submit(other).result()
            assert counts() == {1}
        assert counts() == before
