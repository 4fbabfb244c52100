# SPDX-License-Identifier: Apache-2.0
"""Recipes with low rank and sums, from the file to the verified file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import runtime
import toolkit
from passes.schemes import Uniform
from tests.passes_models import network, normal, run, saved

RECIPE = """
version: 1
rules:
  - match: conv_w
    settings: {{stages: {conv}}}
  - match: gemm_w
    settings: {{stages: [sum: {{parts: [{{uniform: {{bits: 3}}}}, {{codebook: {{entries: 4}}}}]}}]}}
default: {{stages: {default}}}
"""
LOW_RANK = "[{low_rank: {rank: 4}}, {uniform: {bits: 8}}]"
SPATIAL = "[{low_rank: {rank: 4, reshape: spatial}}, {uniform: {bits: 8}}]"
TUCKER = "[{tucker: {ranks: [6, 4]}}, {uniform: {bits: 8}}]"
DEAR = "[{low_rank: {rank: 30}}, {uniform: {bits: 8}}]"


@pytest.mark.parametrize(
    ("conv", "names"),
    [
        (LOW_RANK, {"conv_w.left", "conv_w.right"}),
        (SPATIAL, {"conv_w.left", "conv_w.right"}),
        (TUCKER, {"conv_w.last", "conv_w.core", "conv_w.first"}),
        (DEAR, {"conv_w"}),
        ("[{low_rank: {rank: 0}}]", {"conv_w"}),
    ],
)
def test_a_recipe_is_verified_and_runs_in_three_ways(
    tmp_path: Path, conv: str, names: set[str]
) -> None:
    model = saved(network(), tmp_path / "m.onnx")
    recipe = tmp_path / "r.yaml"
    recipe.write_text(RECIPE.format(conv=conv, default=LOW_RANK))
    small = tmp_path / "small.onnx"
    report = toolkit.compress(model, small, recipe=recipe, portable="always", dry_run=False)
    found = {row.name for row in report.tensors}
    assert names | {"gemm_w", "matmul_w.left", "matmul_w.right"} == found
    kept = [note for note in report.notes if "kept as factors" in note]
    assert len(kept) == (1 if names == {"conv_w"} else 2)
    if not small.exists():  # function bodies are larger than this network
        return
    x = {"x": normal(2, 8, 10, 10, seed=9)}
    wanted = run(onnx.load(small), x)["y"]
    for mode in ("load", "stream"):
        session = runtime.InferenceSession(
            str(small), providers=["CPUExecutionProvider"], mode=mode
        )
        np.testing.assert_allclose(
            session.run(None, x)[0], wanted, rtol=0, atol=1e-5 * np.abs(wanted).max() + 1e-7
        )


def test_a_wrong_product_is_noticed() -> None:
    from passes.schemes import LowRank
    from toolkit.verify import _agrees, expected_weights

    fitted = LowRank(rank=3, inner=Uniform(bits=8)).fit(normal(30, 20))
    expected = expected_weights({"w": fitted})["w"]
    value = fitted.decode()
    assert _agrees(value * np.float32(1 + 1e-7), expected)
    value[3, 4] += np.float32(1e-3)
    assert not _agrees(value, expected)
