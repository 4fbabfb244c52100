# SPDX-License-Identifier: Apache-2.0
"""The examples of docs/PASSES.md and of docstrings run, every pass has one, and passes of onnx_ir
and onnxscript may stand before and behind ours."""

from __future__ import annotations

import doctest
import importlib
import inspect
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnx_ir.passes.common as common
import pytest
from onnxscript.rewriter import RewritePass
from onnxscript.rewriter.rules.common import flatten_to_reshape_rule

import passes
from tests.passes_models import model_of, network, normal, run

PAGE = Path(__file__).parent.parent / "docs" / "PASSES.md"
OWN = [
    name
    for name in passes.__all__
    if inspect.isclass(kind := getattr(passes, name)) and issubclass(kind, ir.passes.PassBase)
]


def test_examples_run() -> None:
    failed, tried = doctest.testfile(str(PAGE), module_relative=False)
    assert tried > 50 and not failed


@pytest.mark.parametrize("name", OWN)
def test_every_pass_has_an_example(name: str) -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert f"\n## {name}\n" in text and f"passes.{name}(" in text
    module = importlib.import_module(getattr(passes, name).__module__)
    assert doctest.testmod(module).failed == 0


PLAN = {
    "conv_w": passes.WeightSettings(bits=8),
    "gemm_w": passes.WeightSettings(scheme="codebook"),
    "matmul_w": passes.WeightSettings(stages=({"low_rank": {"rank": 6}}, {"uniform": {"bits": 8}})),
}
OTHERS = {
    **{name: getattr(common, name) for name in dir(common) if name.endswith("Pass")},
    "RewritePass": lambda: RewritePass([flatten_to_reshape_rule]),
}
UNFIT = {
    "behind": "IdentityEliminationPass",  # breaks branches that hand on values of an outer graph
    "before": "AddInitializersToInputsPass",  # inputs, which a caller may replace, are left alone
}


@pytest.mark.parametrize("place", ["before", "behind"])
def test_passes_of_others(place: str) -> None:
    assert len(OTHERS) > 15
    others = [make() for name, make in OTHERS.items() if name != UNFIT[place]]
    own = [passes.EncodeWeights(PLAN), passes.CleanUp(), passes.EmbedFunctions("always")]
    x, plain, mixed = {"x": normal(2, 8, 10, 10)}, model_of(network()), model_of(network())
    expected = run(ir.passes.Sequential(*own)(plain).model, x)["y"]
    order = [*others, *own] if place == "before" else [*own, *others]
    found = run(ir.passes.Sequential(*order)(mixed).model, x)["y"]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * np.abs(expected).max())
