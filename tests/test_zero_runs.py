# SPDX-License-Identifier: Apache-2.0
"""Zero runs and sparse initializers: exact in all three ways, the layout of Deep Compression, and
`auto`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from passes import CleanUp, EncodeResult, EncodeWeights, read_model, write_model
from passes.errors import SettingsError
from passes.pack_zero_runs import encode_runs
from passes.schemes import Codebook, Lossless, Parameters, Prune, Uniform
from passes.settings import Coding, WeightSettings
from passes.symbol_packing import PackingLimits
from passes.zero_runs import Gaps, join_runs, split_runs
from runtime import InferenceSession, graph_rewrite
from runtime.chain_decoder import decode_chains
from runtime.small import decode_small, small_info
from tests.passes_models import model_of, network, normal, portable, proto_of, run

LARGE = ("conv_w", "gemm_w", "matmul_w")
CPU = ["CPUExecutionProvider"]
X = {"x": normal(2, 8, 10, 10, seed=9)}


def sparse_symbols(size: int, share: float, dtype: Any = np.int8, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    values = rng.integers(-30, 31, size) * (rng.random(size) < share)
    return values.astype(dtype)


def test_the_layout_of_deep_compression() -> None:
    """Han et al. 2016, Fig. 2: differences 1, 3, 8 + 3 in a field of 3 bits, with a filler zero."""
    symbols = np.zeros(16, np.int8)
    symbols[[1, 4, 15]] = [34, 9, 17]
    gaps = Gaps.of(symbols)
    runs = split_runs(symbols, gaps, 3)
    assert runs.differences.tolist() == [2, 3, 8, 3]
    assert runs.values.tolist() == [34, 9, 0, 17] and gaps.entries(3) == 4
    assert np.array_equal(join_runs(runs), symbols)


@given(
    st.lists(st.sampled_from([0, 0, 0, 0, 0, 0, 5, -7, 100]), min_size=1, max_size=300),
    st.integers(1, 8),
    st.integers(-1, 3),
)
@settings(max_examples=150, deadline=None)
def test_runs_come_back(values: list[int], run_bits: int, shift: int) -> None:
    symbols = np.array(values, np.int16) + np.int16(shift)
    gaps = Gaps.of(symbols)
    runs = split_runs(symbols, gaps, run_bits)
    assert runs.differences.min() >= 1 and runs.differences.max() <= 2**run_bits
    assert runs.differences.size == runs.values.size == gaps.entries(run_bits)
    assert np.array_equal(join_runs(runs), symbols)


@pytest.mark.parametrize("dtype", [np.int8, np.int16])
@pytest.mark.parametrize("run_bits", [1, 5, 8, None])
@pytest.mark.parametrize("coder", ["auto", "huffman", "fixed"])
def test_streams_use_the_coders_asked_for(dtype: Any, run_bits: int | None, coder: Any) -> None:
    symbols = sparse_symbols(20_000, 0.1, dtype)
    coding = Coding(coder="zero_run", run_bits=run_bits, run_coder=coder, value_coder=coder)
    runs, *blobs = encode_runs(symbols, coding, PackingLimits(sequential=0))
    for blob, wanted in zip(blobs, (runs.differences, runs.values), strict=True):
        assert np.array_equal(decode_small(blob), wanted)
        assert coder in ("auto", small_info(blob)[0])


def test_a_field_of_the_best_width_is_taken() -> None:
    symbols = sparse_symbols(30_000, 0.05)
    sizes = {}
    for bits in (*range(2, 9), None):
        coding = Coding(coder="zero_run", run_bits=bits, run_coder="huffman", value_coder="huffman")
        _, first, second = encode_runs(symbols, coding, PackingLimits())
        sizes[bits] = first.size + second.size
    best = sizes.pop(None)
    assert best <= 1.01 * min(sizes.values())


@pytest.mark.parametrize("size", [1, 2, 5000])
@pytest.mark.parametrize("value", [0, 3])
def test_constant_symbols(size: int, value: int) -> None:
    runs, *_ = encode_runs(np.full(size, value, np.int8), Coding(), PackingLimits())
    assert runs.differences.tolist() == [1] and runs.fill == value
    assert np.array_equal(join_runs(runs), np.full(size, value, np.int8))


def test_values_that_huffman_cannot_hold_are_refused() -> None:
    symbols = np.array([0, 0, 0, -9000, 9000], np.int16)
    with pytest.raises(SettingsError, match="zero runs of 5 symbols"):
        encode_runs(symbols, Coding(coder="zero_run", value_coder="huffman"), PackingLimits())


@pytest.mark.parametrize(
    "options", [{"run_bits": 5}, {"run_coder": "fixed", "coder": "wide"}, {"run_bits": 0}]
)
def test_wrong_codings(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        WeightSettings(bits=4, **options)


def encode(
    model: ir.Model, fitted: dict[str, Parameters], coding: Coding, **limits: int
) -> EncodeResult:
    result = EncodeWeights(
        fitted, codings=dict.fromkeys(fitted, coding), limits=PackingLimits(**limits)
    )(model)
    assert isinstance(result, EncodeResult)
    return result


def decoded_in_all_ways(model: ir.Model, names: list[str]) -> dict[str, list[np.ndarray]]:
    """Each weight from the decoder without a session, from stream mode, and from stock ONNX
    Runtime; fails where the first does not know a chain."""
    CleanUp()(model)
    feeds = {"x": X["x"].astype(model.graph.inputs[0].dtype.numpy())}  # type: ignore[union-attr]
    proto = ir.serde.serialize_model(model)
    proto.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    content = proto.SerializeToString()
    stream = InferenceSession(content, providers=CPU, mode="stream").run(names, feeds)
    load = InferenceSession(content, providers=CPU).run(names, feeds)
    stock = run(portable(model), feeds, extra=names)
    parts = graph_rewrite.cut(graph_rewrite.prepare(ir.serde.serialize_model(model)))
    assert parts is not None
    own = decode_chains(parts.weights, "", 2)
    return {n: [own[n], s, d, stock[n]] for n, s, d in zip(names, stream, load, strict=True)}


INNER: list[Any] = [
    Uniform(bits=5),
    Uniform(bits=4, symmetric=False, granularity="row"),
    Uniform(bits=10, granularity="group", group_size=8),
    None,
]


@pytest.mark.parametrize("inner", INNER, ids=repr)
@pytest.mark.parametrize(
    ("opset", "dtype", "coder"),
    [(13, "float32", "auto"), (17, "float16", "zero_run"), (21, "float32", "zero_run")],
)
def test_pruned_weights_are_exact_in_three_ways(
    inner: Any, opset: int, dtype: str, coder: Any
) -> None:
    model = model_of(network(opset, dtype))
    scheme = Prune(sparsity=0.9, inner=inner)
    fitted = {n: scheme.fit(model.graph.initializers[n].const_value.numpy()) for n in LARGE}  # type: ignore[union-attr]
    result = encode(model, dict(fitted), Coding(coder=coder))
    assert {e.name for e in result.encoded} == set(LARGE)
    assert {e.scheme for e in result.encoded} == {"prune"}
    if coder == "zero_run" and inner is not None:
        assert {e.coder for e in result.encoded} == {"zero_run"}
    for name, found in decoded_in_all_ways(model, list(LARGE)).items():
        for value in found:
            assert value.tobytes() == fitted[name].decode().tobytes(), name


@pytest.mark.parametrize("run_bits", [1, 5, None])
@pytest.mark.parametrize(("streams", "small"), [("huffman", 0), ("fixed", 4096)])
def test_options_of_zero_runs_in_three_ways(run_bits: int | None, streams: Any, small: int) -> None:
    model = model_of(network())
    coding = Coding(coder="zero_run", run_bits=run_bits, run_coder=streams, value_coder=streams)
    fitted = {
        n: Uniform(relative_step=2.0).fit(model.graph.initializers[n].const_value.numpy())  # type: ignore[union-attr]
        for n in LARGE
    }
    encode(model, dict(fitted), coding, small=small)
    operators = [node.op_type for node in model.graph]
    together = 0 if small == 0 else 2
    assert operators.count("ScatterElements") == len(LARGE) - max(together - 1, 0)
    assert operators.count("DecodeHuffman" if streams == "huffman" else "DecodeFixed") >= 2
    for name, found in decoded_in_all_ways(model, list(LARGE)).items():
        assert all(value.tobytes() == fitted[name].decode().tobytes() for value in found)


def test_a_codebook_whose_zero_is_not_symbol_zero() -> None:
    """Of 256 entries the most frequent one can be out of reach of int8 symbols around it."""
    weight = np.abs(normal(96, 48)) * (np.random.default_rng(0).random((96, 48)) < 0.2)
    weight[weight == 0] = 5.0
    fitted = Codebook(entries=256).fit(weight.astype(np.float32))
    model = model_of(network())
    encode(model, {"matmul_w": fitted}, Coding(coder="zero_run"))
    for value in decoded_in_all_ways(model, ["matmul_w"])["matmul_w"]:
        assert value.tobytes() == fitted.decode().tobytes()


def test_settings_of_a_weight_name_the_coder() -> None:
    model = model_of(network())
    settings_ = WeightSettings(relative_step=2.0, coder="zero_run", run_bits=4, run_coder="fixed")
    result = EncodeWeights({"gemm_w": settings_})(model)
    assert isinstance(result, EncodeResult) and result.encoded[0].coder == "zero_run"


def matmul(weight: np.ndarray) -> ir.Model:
    text = f"""< ir_version: 8, opset_import: ["" : 17] >
    g (float[N,{weight.shape[0]}] x) => (float[N,{weight.shape[1]}] y) {{ y = MatMul (x, w) }}"""
    return model_of(proto_of(text, {"w": weight}))


@pytest.mark.parametrize("kind", ["far", "spread", "dense"])
def test_auto_takes_zero_runs_where_they_are_smaller(kind: str) -> None:
    """A nonzero every 41st place is what runs see and contexts do not; and of int16 symbols the
    wide coder stores raw low bits, of zeros too."""
    weight = np.zeros((600, 400), np.float32)
    rng = np.random.default_rng(1)
    if kind == "far":
        weight.reshape(-1)[::41] = rng.integers(1, 60, weight.size // 41 + 1)
    elif kind == "spread":
        weight = rng.integers(-60, 60, weight.shape) * (rng.random(weight.shape) < 0.03)
        weight = weight * np.exp(rng.normal(size=(600, 1)))
    else:
        weight = rng.normal(0, 20, weight.shape)
    fitted = Uniform(step=1.0).fit(weight.astype(np.float32))
    sizes = {}
    for coder in ("auto", "zero_run", "wide"):
        model = matmul(weight.astype(np.float32))
        (entry,) = encode(model, {"w": fitted}, Coding(coder=coder)).encoded  # type: ignore[arg-type]
        sizes[coder] = (len(ir.serde.serialize_model(model).SerializeToString()), entry.coder)
    assert sizes["auto"][0] <= min(sizes["wide"][0], sizes["zero_run"][0]) + 64
    assert (sizes["auto"][1] == "zero_run") == (kind != "dense")


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("sparsity", [1.0, 0.99, 0.9, 0.5, 0.1, 0.0])
def test_survivors_are_scattered_where_that_is_smaller(sparsity: float, dtype: str) -> None:
    weight = normal(128, 96).astype(dtype)
    fitted = Prune(sparsity=sparsity).fit(weight)
    sizes = []
    for parameters in (fitted, fitted.inner):
        model = matmul(np.ones((128, 96), np.float32))
        model.graph.initializers["w"].const_value = ir.Tensor(weight)
        encode(model, {"w": parameters}, Coding())
        sizes.append(len(ir.serde.serialize_model(model).SerializeToString()))
    scattered = any(node.op_type == "ScatterElements" for node in model.graph)
    assert not scattered and sizes[0] <= sizes[1] + 32
    if sparsity == 0.9:
        assert sizes[0] < 0.85 * sizes[1]


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_sparse_initializers(tmp_path: Path, dtype: str) -> None:
    kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else np.dtype(dtype)
    weight = normal(64, 96).astype(kind)
    text = """< ir_version: 8, opset_import: ["" : 17] >
    g (float[N,64] x) => (float[N,96] y) { c = Cast <to = 1> (w) y = MatMul (x, c) }"""
    model = model_of(proto_of(text, {"w": weight}))
    fitted = Prune(fraction=0.05).fit(weight)
    (entry,) = encode(model, {"w": fitted}, Coding(coder="sparse")).encoded
    assert entry.coder == "sparse" and entry.num_bytes < weight.nbytes
    CleanUp()(model)
    write_model(model, tmp_path / "m.onnx")
    proto = onnx.load(tmp_path / "m.onnx")
    onnx.checker.check_model(proto)
    assert [s.values.name for s in proto.graph.sparse_initializer] == ["w"]
    assert not proto.graph.initializer
    assert (tmp_path / "m.onnx").stat().st_size < entry.num_bytes + 150
    x = {"x": normal(2, 64)}
    wanted = x["x"] @ fitted.decode().astype(np.float32)
    for make in (onnxruntime.InferenceSession, InferenceSession):
        found = make(str(tmp_path / "m.onnx"), providers=CPU).run(None, x)[0]
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
    again = read_model(tmp_path / "m.onnx").model.graph.initializers["w"].const_value
    assert again is not None and again.numpy().tobytes() == fitted.decode().tobytes()


def test_sparse_beside_chains_and_what_is_left_alone(tmp_path: Path) -> None:
    model = model_of(network())
    arrays = {n: model.graph.initializers[n].const_value.numpy() for n in LARGE}  # type: ignore[union-attr]
    fitted: dict[str, Parameters] = {
        "conv_w": Prune(fraction=0.05).fit(arrays["conv_w"]),
        "gemm_w": Uniform(bits=6).fit(arrays["gemm_w"]),
        "matmul_w": Lossless().fit(arrays["matmul_w"]),
    }
    codings = {"conv_w": Coding(coder="sparse"), "matmul_w": Coding(coder="sparse")}
    result = EncodeWeights(fitted, codings=codings)(model)
    assert isinstance(result, EncodeResult)
    assert [e.name for e in result.encoded] == ["gemm_w", "conv_w"]
    assert result.notes == ("matmul_w: left alone: 18432 bytes would not become fewer",)
    write_model(portable(model), tmp_path / "m.onnx")
    outputs = [
        make(str(tmp_path / "m.onnx"), providers=CPU, **options).run(None, X)[0]
        for make, options in (
            (onnxruntime.InferenceSession, {}),
            (InferenceSession, {}),
            (InferenceSession, {"mode": "stream"}),
        )
    ]
    for other in outputs[1:]:
        np.testing.assert_allclose(other, outputs[0], rtol=0, atol=1e-4)


def test_integers_cannot_be_sparse() -> None:
    weight = sparse_symbols(6400, 0.02).reshape(64, 100)
    text = """< ir_version: 8, opset_import: ["" : 17] >
    g (uint8[N,64] x) => (int32[N,100] y) { y = MatMulInteger (x, w) }"""
    model = model_of(proto_of(text, {"w": weight}))
    result = EncodeWeights({"w": WeightSettings(scheme="lossless", coder="sparse")})(model)
    assert isinstance(result, EncodeResult) and not result.modified
    assert result.notes == ("w: left alone: sparse initializers hold floats",)
