# SPDX-License-Identifier: Apache-2.0
"""The trellis scheme: fitting, degenerate weights, its chain in the three ways to run a file."""

from __future__ import annotations

from math import prod
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

import passes
import runtime
from passes.chains import chain_of
from passes.errors import SchemeError
from passes.schemes import FitContext, Parameters, Trellis, Uniform
from passes.schemes.trellis import row_view
from passes.select_weights import select_weights
from runtime.trellis import trellis_integers
from tests.passes_models import NETWORK_SHAPES, model_of, network, normal, portable, run

LARGE = ("conv_w", "gemm_w", "matmul_w")


@pytest.mark.parametrize("shape", [(), (1,), (7,), (300,), (3, 5), (40, 70), (9, 4, 3, 3)])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_decoded_weight(shape: tuple[int, ...], dtype: str) -> None:
    kind = ir.DataType.BFLOAT16.numpy() if dtype == "bfloat16" else np.dtype(dtype)
    weight = normal(*shape).astype(kind)
    fitted = Trellis(relative_step=0.2, rate_weight=0).fit(weight)
    decoded = fitted.decode()
    assert decoded.shape == shape and decoded.dtype == kind == fitted.dtype
    expected = fitted.integers.astype(np.float32) * fitted.scale
    np.testing.assert_array_equal(decoded, expected.astype(kind))
    # The first symbol of a row may take the even integers only.
    worst = np.abs(decoded.astype(np.float32) - weight.astype(np.float32)).max()
    assert worst <= 2.6 * float(fitted.scale)
    assert fitted.bits() > 0 and fitted.children() == ()


def test_integers_are_those_of_the_rows() -> None:
    fitted = Trellis(step=0.3).fit(normal(6, 4, 5, 5))
    rows = fitted.symbols.reshape(-1, fitted.view[2])
    np.testing.assert_array_equal(
        fitted.integers, trellis_integers(rows).reshape(fitted.symbols.shape)
    )


def test_steps() -> None:
    weight = normal(40, 100)
    assert Trellis(step=0.1).fit(weight).scale == np.float32(0.1)
    rms = float(np.sqrt(np.mean(np.square(weight, dtype=np.float64))))
    assert Trellis(relative_step=0.5).fit(weight).scale == pytest.approx(0.5 * rms)
    for bits in (2, 4, 8, 12, 16):
        fitted = Trellis(bits=bits).fit(weight)
        assert fitted.integers.dtype == (np.int8 if bits <= 8 else np.int16)
        assert int(np.abs(fitted.integers).max()) <= 2 ** (bits - 1) - 1
    half = Trellis(step=0.1).fit(weight.astype(np.float16))
    assert np.float32(np.float16(half.scale)) == half.scale


@pytest.mark.parametrize("shape", [(1,), (5, 6), (70, 80)])
def test_constant_and_zero_weights(shape: tuple[int, ...]) -> None:
    zero = Trellis(bits=4).fit(np.zeros(shape, np.float32))
    assert zero.scale == 1 and not zero.decode().any()
    constant = Trellis(bits=8, rate_weight=0).fit(np.full(shape, 3.5, np.float32))
    np.testing.assert_allclose(constant.decode(), 3.5, atol=2.1 * 3.5 / 127)


def test_less_error_and_fewer_bits_than_uniform() -> None:
    weight = normal(64, 256)
    plain = Uniform(step=0.5).fit(weight)
    fitted = Trellis(step=0.5 * 0.595, rate_weight=0.2).fit(weight)
    error, uniform_error = (np.square(p.decode() - weight).sum() for p in (fitted, plain))
    assert error < uniform_error and fitted.bits() < 0.97 * plain.bits()


def test_mask_and_importance() -> None:
    weight = normal(30, 100)
    mask = normal(30, 100, seed=1) > 0
    fitted = Trellis(step=0.3).fit(weight, FitContext(mask=mask))
    assert not fitted.decode()[~mask].any() and fitted.decode()[mask].any()
    importance = np.where(np.arange(30) < 15, 100.0, 1.0)[:, None]
    weighted = Trellis(step=0.3, rate_weight=0.4).fit(weight, FitContext(importance=importance))
    errors = np.square(weighted.decode() - weight).mean(1)
    assert errors[:15].mean() < 0.8 * errors[15:].mean()
    for wrong in (0.0, -1.0, np.nan):
        with pytest.raises(SchemeError, match="importance"):
            Trellis(step=0.3).fit(weight, FitContext(importance=np.array(wrong)))


def test_bad_weights_and_settings() -> None:
    with pytest.raises(SchemeError, match="empty"):
        Trellis(bits=4).fit(np.empty((0, 3), np.float32))
    with pytest.raises(SchemeError, match="NaN"):
        Trellis(bits=4).fit(np.array([1, np.nan], np.float32))
    with pytest.raises(SchemeError, match="16 bits"):
        Trellis(step=1e-6).fit(normal(3, 3))
    for wrong in (
        {},
        {"bits": 4, "step": 0.1},
        {"bits": 1},
        {"bits": 17},
        {"step": 0.0},
        {"step": float("inf")},
        {"relative_step": -1.0},
        {"bits": 4, "rate_weight": -0.1},
        {"bits": 4, "rate_weight": float("nan")},
        {"bits": 4, "rounds": 0},
    ):
        with pytest.raises(SchemeError, match="trellis: "):
            Trellis(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("shape", "view"),
    [
        ((), (1, 1, 1)),
        ((7,), (1, 1, 7)),
        ((128,), (1, 1, 128)),
        ((384, 1536), (384, 1, 1536)),
        ((128, 32, 64, 1), (128, 32, 64)),
        ((64, 32, 3, 3), (64, 1, 288)),
        ((1152, 1, 3, 3), (1, 32, 324)),
        ((10, 640), (10, 4, 160)),
        ((2, 100003), (1, 49, 4096)),
        ((32, 131072), (32, 2, 65536)),
    ],
)
def test_row_view(shape: tuple[int, ...], view: tuple[int, int, int]) -> None:
    assert row_view(shape) == view
    assert prod(view) >= prod(shape)


def trellis_model(opset: int, bits: int) -> tuple[ir.Model, dict[str, np.ndarray]]:
    """The network with two trellis weights and a uniform one, and what they decode to."""
    model = model_of(network(opset))
    weights = {w.name: w.array() for w in select_weights(model)}
    plan: dict[str, passes.WeightSettings | Parameters] = {
        "conv_w": Trellis(bits=bits).fit(weights["conv_w"]),
        "gemm_w": Uniform(bits=bits).fit(weights["gemm_w"]),
        "matmul_w": Trellis(bits=bits).fit(weights["matmul_w"]),
    }
    expected = {n: p.decode() for n, p in plan.items() if isinstance(p, Parameters)}
    passes.EncodeWeights(plan)(model)
    passes.CleanUp()(model)
    return model, expected


@pytest.mark.parametrize("opset", [13, 17, 21])
@pytest.mark.parametrize("bits", [6, 12])
def test_three_ways_give_the_fitted_weights(tmp_path: Path, opset: int, bits: int) -> None:
    model, expected = trellis_model(opset, bits)
    assert not set(LARGE) & set(model.graph.initializers)
    proto = ir.serde.serialize_model(portable(model))
    onnx.checker.check_model(proto)
    x = {"x": normal(2, 8, 10, 10, seed=9)}
    stock = run(proto, x, extra=list(LARGE))
    for name in LARGE:
        np.testing.assert_array_equal(stock[name], expected[name])
    path = str(tmp_path / "small.onnx")
    onnx.save(proto, path)
    providers = ["CPUExecutionProvider"]
    for mode in ("load", "stream"):
        session = runtime.InferenceSession(path, providers=providers, mode=mode)
        np.testing.assert_allclose(session.run(None, x)[0], stock["y"], rtol=1e-5, atol=1e-3)


def test_bodies_know_trellis_sets_only_where_there_are_some() -> None:
    with_trellis, _ = trellis_model(17, 6)
    plain = model_of(network(17))
    passes.EncodeWeights(dict.fromkeys(LARGE, passes.WeightSettings(bits=6)))(plain)
    sizes = [
        next(
            len(ir.serde.serialize_function(body).SerializeToString())
            for key, body in portable(model).functions.items()
            if key[1] == "DecodeWide"
        )
        for model in (with_trellis, plain)
    ]
    assert sizes[0] > sizes[1] + 300


def test_other_coders_do_not_know_its_symbols() -> None:
    model = model_of(network(17))
    weight = next(w for w in select_weights(model) if w.name == "gemm_w")
    fitted = Trellis(bits=4).fit(weight.array())
    with pytest.raises(SchemeError, match="only the wide coder"):
        chain_of(weight, fitted, "huffman", 17)
    assert fitted.shape == NETWORK_SHAPES["gemm_w"]


def test_stock_session_without_the_library_reads_a_trellis_file() -> None:
    model, _ = trellis_model(17, 4)
    proto = ir.serde.serialize_model(portable(model))
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    assert session.run(None, {"x": normal(1, 8, 10, 10)})[0].shape == (1, 48)
