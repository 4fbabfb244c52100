# SPDX-License-Identifier: Apache-2.0
"""What all tests share."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keeps what a test measures out of the user's cache folder."""
    folder = tmp_path_factory.getbasetemp() / "cache"
    monkeypatch.setattr("toolkit.moment_store.cache_folder", lambda name: folder)
    return folder
