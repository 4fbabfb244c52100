# SPDX-License-Identifier: Apache-2.0
"""Transform domain in graphs: the same bits from NumPy, stock ONNX Runtime, load and stream mode;
bases are made by nodes, once for all weights of a size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import runtime
import toolkit
from passes import CleanUp, EncodeWeights, WeightSettings, select_weights
from passes.encode_weights import EncodeResult
from passes.schemes import (
    Codebook,
    FitContext,
    Lossless,
    Parameters,
    Scheme,
    Transform,
    Uniform,
)
from tests.passes_models import model_of, network, normal, portable, proto_of, run, saved

HEADER = '< ir_version: 8, opset_import: ["" : {opset}] >'
SUM = HEADER + " g ({kind}[{dims}] x) => ({kind}[{dims}] y) {{ y = Add (x, w) }}"
KINDS = ("dct", "dst", "dft", "haar", "db4", "bior2.2")
FINE = Uniform(bits=4)


def summed(weight: np.ndarray, opset: int = 13) -> onnx.ModelProto:
    """A model that adds its input to ``weight``: with zeros it gives the weight's bits."""
    kind = {"float32": "float", "float16": "float16", "bfloat16": "bfloat16"}[weight.dtype.name]
    dims = ",".join(map(str, weight.shape))
    return proto_of(SUM.format(opset=opset, kind=kind, dims=dims), {"w": weight})


def encoded(
    proto: onnx.ModelProto, plan: dict[str, Parameters]
) -> tuple[onnx.ModelProto, EncodeResult]:
    model = model_of(proto)
    result = EncodeWeights(plan)(model)
    assert isinstance(result, EncodeResult)
    CleanUp()(model)
    return ir.serde.serialize_model(portable(model)), result


def check_ways(weight: np.ndarray, fitted: Parameters, folder: Path, opset: int = 13) -> None:
    """All three ways give the bits of ``decode``."""
    proto, result = encoded(summed(weight, opset), {"w": fitted})
    assert [entry.scheme for entry in result.encoded] == ["transform"], result.notes
    onnx.checker.check_model(proto)
    expected, zeros = fitted.decode(), np.zeros_like(weight)
    path = folder / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    for mode in ("load", "stream"):
        session = runtime.InferenceSession(
            str(path),
            providers=["CPUExecutionProvider"],
            mode=mode,  # type: ignore[arg-type]
        )
        (found,) = session.run(None, {"x": zeros})
        assert found.dtype == weight.dtype and np.array_equal(found, expected), mode
    values = run(proto, {"x": zeros}, extra=["w"])
    assert values["w"].tobytes() == expected.tobytes()


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_in_three_ways(kind: str, tmp_path: Path) -> None:
    weight = normal(32, 12, 12)
    check_ways(weight, Transform(kind, relative_step=0.2).fit(weight), tmp_path)


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((64, 96), {"axes": (0, 1), "block": 8, "inner": FINE}),
        ((64, 90), {"axes": (0, 1), "block": (64, 45), "inner": FINE}),  # two products
        ((8, 9, 10, 11), {"axes": (0, 1, 2, 3), "inner": FINE}),  # three products
        ((16, 40, 3, 3), {"inner": FINE}),
        ((64, 31, 3), {"axes": (0,), "kind": "db4", "inner": FINE}),
        ((4096, 1), {"inner": FINE}),  # transforms of one element
        ((63, 65), {"inner": Codebook(20)}),
        ((63, 65), {"inner": Uniform(bits=12)}),
        ((63, 65), {"inner": Transform("haar", axes=(1,), inner=FINE)}),
        ((63, 65), {"inner": FINE, "keep_energy": 0.5}),
        ((63, 65), {"inner": Uniform(bits=5, granularity="group", symmetric=False)}),
    ],
    ids=str,
)
def test_forms(shape: tuple[int, ...], options: dict[str, Any], tmp_path: Path) -> None:
    weight = normal(*shape)
    check_ways(weight, Transform(**options).fit(weight), tmp_path)


def test_lossless_coefficients(tmp_path: Path) -> None:
    weight = (normal(64, 80) > 1.5).astype(np.float32)
    scheme = Transform("haar", block=2, inner=Lossless())
    check_ways(weight, scheme.fit(weight), tmp_path)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_on_stock(dtype: str) -> None:
    kind = ir.DataType.BFLOAT16.numpy() if dtype == "bfloat16" else np.dtype(dtype)
    weight = normal(64, 80).astype(kind)
    fitted = Transform(block=8, inner=FINE).fit(weight)
    text = (
        HEADER
        + " g (float[64,80] x) => (float[64,80] y) {{ c = Cast <to = 1> (w) y = Add (x, c) }}"
    )
    proto, _ = encoded(proto_of(text.format(opset=13), {"w": weight}), {"w": fitted})
    found = run(proto, {"x": np.zeros(weight.shape, np.float32)})["y"]
    assert np.array_equal(found, fitted.decode().astype(np.float32))


@pytest.mark.parametrize("whole", [False, True])
def test_masks(whole: bool, tmp_path: Path) -> None:
    weight = normal(64, 8, 16)
    mask = np.random.default_rng(0).random((64, 1, 1) if whole else weight.shape) < 0.5
    context = FitContext(mask=np.broadcast_to(mask, weight.shape))
    check_ways(weight, Transform(inner=FINE).fit(weight * mask, context), tmp_path)


def test_a_transposed_weight(tmp_path: Path) -> None:
    """Axes are those of the weight as it is stored."""
    text = (
        HEADER.format(opset=13)
        + """ g (float[1,8,20,20] x) => (float[1,32,18,18] y) {
      c = Transpose <perm = [3,2,0,1]> (w)  y = Conv (x, c) }"""
    )
    weight = normal(3, 3, 8, 32)
    mask = np.random.default_rng(0).random(weight.shape) < 0.7
    fitted = Transform(axes=(0, 1), inner=FINE).fit(weight, FitContext(mask=mask))
    proto, _ = encoded(proto_of(text, {"w": weight}), {"w": fitted})
    values = run(proto, {"x": normal(1, 8, 20, 20)}, extra=["w"])
    assert values["w"].tobytes() == fitted.decode().tobytes()


@settings(max_examples=6, deadline=None)
@given(
    st.sampled_from(KINDS),
    st.tuples(st.integers(1, 12), st.integers(1, 12), st.integers(1, 12)),
    st.sampled_from([(0,), (1,), (2,), (0, 2), (0, 1, 2)]),
    st.integers(0, 6),
)
def test_any_shape(
    kind: str, shape: tuple[int, int, int], axes: tuple[int, ...], block: int
) -> None:
    weight = np.concatenate([normal(*shape, seed=seed) for seed in range(2, 32)], axis=1)
    weight = np.concatenate([weight] * max(1, -(-4096 // weight.size)), axis=1)
    if weight.shape[1] > 2048 and 1 in axes and not block:
        block = 5
    fitted = Transform(kind, axes, block, inner=Uniform(bits=3)).fit(weight)
    proto, result = encoded(summed(weight), {"w": fitted})
    assert result.encoded
    values = run(proto, {"x": np.zeros_like(weight)}, extra=["w"])
    assert values["w"].tobytes() == fitted.decode().tobytes()


def test_a_basis_is_made_once_and_not_stored() -> None:
    weights = {name: normal(96, 64, seed=i) for i, name in enumerate("abc")}
    text = (
        HEADER.format(opset=13)
        + """ g (float[N,96] x) => (float[N,64] y) {
      p = MatMul (x, a)  q = MatMul (x, b)  r = MatMul (x, c)  y = Sum (p, q, r) }"""
    )
    plan: dict[str, Parameters] = {
        name: Transform("dct", inner=FINE).fit(weight) for name, weight in weights.items()
    }
    proto, result = encoded(proto_of(text, weights), plan)
    kinds = [node.op_type for node in proto.graph.node if not node.domain]
    assert kinds.count("Sin") == 1 and kinds.count("MatMul") == 6
    floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE)
    stored = [t for t in proto.graph.initializer if t.data_type in floats]
    assert max(int(np.prod(t.dims)) for t in stored) <= 1
    assert 0 < result.shared_bytes < 3000
    assert {entry.name for entry in result.encoded} == set("abc")


@pytest.mark.parametrize("layers", ["conv", "linear", "all"])
def test_by_kind_of_layer(layers: str) -> None:
    """Only the fully connected layers, only the convolutions, or all: one scheme per operator."""
    proto = network(13)
    plan: dict[str, Parameters] = {}
    for weight in select_weights(model_of(proto)):
        if weight.role != "weight":
            continue
        layer = "conv" if "Conv" in weight.op_types else "linear"
        scheme: Scheme = Transform(block=(0, 0) if layer == "conv" else 16, inner=FINE)
        plan[weight.name] = (scheme if layers in (layer, "all") else FINE).fit(weight.array())
    found, result = encoded(proto, plan)
    schemes = {entry.name: entry.scheme for entry in result.encoded}
    conv, linear = (
        "transform" if layers in (layer, "all") else "uniform" for layer in ("conv", "linear")
    )
    assert schemes == {"conv_w": conv, "gemm_w": linear, "matmul_w": linear}
    values = run(found, {"x": normal(2, 8, 10, 10)}, extra=list(plan))
    for name, fitted in plan.items():
        assert values[name].tobytes() == fitted.decode().tobytes()


def test_what_auto_leaves_out_is_plain_and_said() -> None:
    stages = ({"auto_transform": {"kinds": ["dct"]}}, {"uniform": {"bits": 4}})
    model = model_of(summed(normal(64, 80)))
    result = EncodeWeights({"w": WeightSettings(stages=stages)})(model)
    assert isinstance(result, EncodeResult)
    assert [entry.scheme for entry in result.encoded] == ["uniform"]
    assert any("no transform" in note for note in result.notes)


@pytest.mark.parametrize("name", ["dct-conv", "dct-linear", "dct-all"])
def test_ready_recipes_by_kind_of_layer(name: str, tmp_path: Path) -> None:
    path, small = saved(network(17), tmp_path / "net.onnx"), tmp_path / "small.onnx"
    report = toolkit.compress(path, small, recipe=name)
    schemes = {row.name: row.scheme for row in report.tensors}
    conv = "uniform" if name == "dct-linear" else "transform"
    linear = "uniform" if name == "dct-conv" else "transform"
    expected = {"conv_w": conv, "gemm_w": linear, "matmul_w": linear}
    assert {key: schemes[key] for key in expected} == expected
