# SPDX-License-Identifier: Apache-2.0
"""Dependent quantisation inside of compensated rounding."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import toolkit
from passes.schemes import (
    Compensated,
    CompensatedTrellis,
    FitContext,
    MatrixLayout,
    Moments,
    Trellis,
    TrellisParameters,
    UniformParameters,
)
from passes.schemes.coded_bits import coded_bits
from passes.schemes.compensated_trellis import coded_order
from tests.passes_models import normal
from tests.toolkit_models import mlp

LAYOUTS = {
    "matmul": (MatrixLayout((0, 1), (60, 96), (), (0,), (1,)), (60, 96), (0, 1)),
    "gemm": (MatrixLayout((0, 1), (96, 60), (), (1,), (0,)), (96, 60), (1, 0)),
    "conv": (MatrixLayout((0, 1, 2), (1, 96, 12, 5), (0,), (2, 3), (1,)), (96, 12, 5), (1, 2, 0)),
    "recurrent": (MatrixLayout((0, 1, 2), (1, 96, 60), (0,), (2,), (1,)), (1, 96, 60), (0, 2, 1)),
    "moved": (MatrixLayout((1, 0), (96, 60), (), (1,), (0,)), (60, 96), (0, 1)),
}


def moments_for(layout: MatrixLayout) -> Moments:
    _, features, _ = layout.matrix_shape
    mixing = normal(features, features, seed=3) + 2 * np.eye(features)
    x = normal(400, features, seed=4) @ mixing + 1
    inputs = np.asarray(x.T @ x / 400, np.float32)[None]
    return Moments(inputs, np.asarray(x.mean(0), np.float32)[None], 400.0, layout)


def output_error(moments: Moments, error: np.ndarray) -> float:
    matrix = moments.layout.matrix(error.astype(np.float64))[0]
    return float(np.einsum("fo,fe,eo->", matrix, moments.inputs[0].astype(np.float64), matrix))


@pytest.mark.parametrize("kind", LAYOUTS)
def test_parameters_of_every_layout(kind: str) -> None:
    layout, shape, order = LAYOUTS[kind]
    assert coded_order(layout) == order
    weight, moments = normal(*shape, seed=5), moments_for(layout)
    fitted = CompensatedTrellis(step=0.5).fit(weight, FitContext(moments=moments))
    assert isinstance(fitted, TrellisParameters)
    assert fitted.shape == shape == fitted.decode().shape
    assert fitted.symbols.shape == tuple(shape[i] for i in order)
    nearest = np.rint(weight / 0.5) * np.float32(0.5)
    assert output_error(moments, fitted.decode() - weight) < output_error(moments, nearest - weight)


def test_the_trellis_is_worth_bits_at_the_same_error() -> None:
    """By the rates that the coder itself would have, interpolated along uniform steps."""
    layout = MatrixLayout((0, 1), (128, 256), (), (0,), (1,))
    weight, moments = normal(128, 256, seed=5), moments_for(layout)
    context = FitContext(moments=moments)
    curve = []
    for step in (0.6, 0.8, 1.0, 1.25):
        uniform = Compensated(step=step, adaptive=False).fit(weight, context)
        curve.append((output_error(moments, uniform.decode() - weight), coded_bits(uniform)))
    errors, sizes = np.array(sorted(curve)).T
    fitted = CompensatedTrellis(step=0.9, adaptive=False).fit(weight, context)
    assert isinstance(fitted, TrellisParameters)
    error = output_error(moments, fitted.decode() - weight)
    assert errors[0] < error < errors[-1]
    same = float(np.interp(np.log(error), np.log(errors), sizes))
    assert fitted.bits() < 0.98 * same


def test_compensation_is_worth_more_than_the_trellis_alone() -> None:
    layout = MatrixLayout((0, 1), (60, 96), (), (0,), (1,))
    weight, moments = normal(60, 96, seed=5), moments_for(layout)
    plain = Trellis(step=0.36).fit(weight)
    fitted = CompensatedTrellis(step=0.6, adaptive=False).fit(weight, FitContext(moments=moments))
    errors = [output_error(moments, p.decode() - weight) for p in (plain, fitted)]
    assert errors[1] < 0.75 * errors[0]
    assert fitted.bits() < 1.1 * plain.bits()


def test_another_sweep_never_costs_more() -> None:
    layout = MatrixLayout((0, 1), (60, 96), (), (0,), (1,))
    weight, moments = normal(60, 96, seed=5), moments_for(layout)
    context, costs = FitContext(moments=moments), []
    for sweeps in (0, 1, 3):
        scheme = CompensatedTrellis(step=0.6, adaptive=False, sweeps=sweeps, rate_weight=0.0)
        costs.append(output_error(moments, scheme.fit(weight, context).decode() - weight))
    assert costs[2] <= costs[1] * 1.01 and costs[1] <= costs[0] * 1.01


def test_what_it_leaves_to_plain_compensation() -> None:
    groups = MatrixLayout((0, 1, 2), (2, 96, 5, 3), (0,), (2, 3), (1,))
    inputs = np.stack([np.eye(15)] * 2).astype(np.float32)
    moments = Moments(inputs, np.zeros((2, 15), np.float32), 9.0, groups)
    scheme, weight = CompensatedTrellis(step=0.5), normal(192, 5, 3)
    assert isinstance(scheme.fit(weight, FitContext(moments=moments)), UniformParameters)
    assert isinstance(scheme.fit(weight), UniformParameters)
    few = MatrixLayout((0, 1), (60, 32), (), (0,), (1,))
    moments = moments_for(few)
    assert isinstance(scheme.fit(normal(60, 32), FitContext(moments=moments)), UniformParameters)


def test_a_file_made_by_a_recipe(tmp_path: Path) -> None:
    path = mlp(tmp_path / "m.onnx", width=192)
    rng = np.random.default_rng(7)
    x = rng.standard_normal((200, 6)) @ rng.standard_normal((6, 64))
    np.savez(tmp_path / "x.npz", x=x.astype(np.float32))
    (tmp_path / "r.yaml").write_text(
        "version: 1\nrules: [{match: A, settings: {stages: [{compensated_trellis: "
        "{relative_step: 0.8, centred: true}}]}}]\ndefault: {scheme: keep}\n"
    )
    report = toolkit.compress(
        path, tmp_path / "o.onnx", recipe=tmp_path / "r.yaml", calibration=tmp_path / "x.npz",
        portable="always",
    )  # fmt: skip
    assert report.written and report.fidelity.sqnr_db > 15
    assert report.stock_fidelity is not None
    assert report.stock_fidelity.sqnr_db == pytest.approx(report.fidelity.sqnr_db, abs=0.01)
