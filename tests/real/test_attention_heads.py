# SPDX-License-Identifier: Apache-2.0
"""Attention heads of real transformers are removed whole; a smaller plain model is left."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import toolkit
from models.fetch import DataUnavailable
from models.network import Network
from models.zoo import network
from toolkit.ort_session import open_session, run_named

HEADS = {
    "minilm": ("encoder.layer.{}.attention.self.{}.weight", 12),
    "stories15m": ("layers.{}.{}.weight", 6),
}
"""The weights of query, key and value by layer, and heads in each layer."""


def entry_of(name: str) -> Network:
    entry = network(name)
    try:
        entry.onnx_path()
        entry.feeds(1)
    except DataUnavailable as error:
        pytest.skip(str(error))
    return entry


def columns(path: Path, pattern: str, layer: int) -> list[int]:
    """Columns of the weights of query, key and value."""
    shapes = {tensor.name: tuple(tensor.dims) for tensor in onnx.load(path).graph.initializer}
    return [shapes[pattern.format(layer, part)][1] for part in ("query", "key", "value")]


@pytest.mark.parametrize("name", HEADS)
@pytest.mark.parametrize(
    ("selection", "reconstruct", "limit"),
    [("l2", False, 1.0), ("greedy", True, 0.35)],
    ids=["by norm", "greedy, refitted"],
)
def test_heads_go_whole(
    name: str, selection: str, reconstruct: bool, limit: float, tmp_path: Path
) -> None:
    """A third of the heads of two layers."""
    entry, (pattern, heads) = entry_of(name), HEADS[name]
    slim, layers = tmp_path / "slim.onnx", (0, 3)
    np.savez(tmp_path / "data.npz", **entry.calibration(8))  # type: ignore[arg-type]
    report = toolkit.prune_channels(
        entry.onnx_path(),
        slim,
        layers={pattern.format(layer, "query"): 1 / 3 for layer in layers},
        selection=selection,
        allocation="equal",
        reconstruct=reconstruct,
        calibration=tmp_path / "data.npz",
        jobs=1,
    )
    assert [(g.num_channels, g.num_removed) for g in report.groups] == [(heads, heads // 3)] * 2
    assert report.pruned_macs < report.original_macs
    assert slim.stat().st_size < entry.onnx_path().stat().st_size
    onnx.checker.check_model(str(slim))
    for layer in range(6):
        before = columns(entry.onnx_path(), pattern, layer)
        share = 2 / 3 if layer in layers else 1
        assert columns(slim, pattern, layer) == [share * size for size in before]
    feeds = entry.feeds(4)
    wanted = run_named(open_session(entry.onnx_path(), 1), feeds)
    found = run_named(open_session(slim, 1), feeds)
    for key, value in wanted.items():
        assert found[key].shape == value.shape
        assert np.linalg.norm(found[key] - value) < limit * np.linalg.norm(value)
