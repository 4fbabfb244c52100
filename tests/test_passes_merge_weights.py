# SPDX-License-Identifier: Apache-2.0
"""Weights that a model has several times are stored once, and it computes the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import passes
import runtime
import toolkit
from tests.decode_models import CPU
from toolkit.errors import InputError

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
ROWS, WIDTH = 60, 32


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def model_of(
    nodes: list[onnx.NodeProto],
    weights: dict[str, np.ndarray],
    inputs: dict[str, tuple[int, list[Any]]],
    outputs: dict[str, int],
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info(name, *of) for name, of in inputs.items()],
        [helper.make_tensor_value_info(name, kind, None) for name, kind in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def tied(**weights: np.ndarray) -> onnx.ModelProto:
    """A language model's ends: rows of a table, a layer, and the table turned."""
    table = normal(ROWS, WIDTH)
    given = {"head": np.ascontiguousarray(table.T), "table": table, "layer": normal(WIDTH, WIDTH)}
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["rows"]),
        helper.make_node("MatMul", ["rows", "layer"], ["mixed"]),
        helper.make_node("Tanh", ["mixed"], ["bent"]),
        helper.make_node("MatMul", ["bent", "head"], ["y"]),
    ]
    return model_of(nodes, given | weights, {"ids": (INT64, ["n"])}, {"y": FLOAT})


def merged(proto: onnx.ModelProto) -> tuple[dict[str, str], onnx.ModelProto]:
    model = ir.from_proto(proto)
    result = passes.MergeWeights()(model)
    assert result.modified == bool(result.merged)
    return result.merged, ir.to_proto(model)


def outputs(proto: onnx.ModelProto, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=CPU)
    return list(session.run(None, feeds))


IDS = {"ids": np.arange(7)}


def test_a_turned_weight_becomes_a_transpose_of_the_one_that_is_looked_up() -> None:
    proto = tied()
    found, made = merged(proto)
    assert found == {"head": "table"}
    assert [node.op_type for node in made.graph.node][0] == "Transpose"
    assert {t.name for t in made.graph.initializer} == {"table", "layer"}
    np.testing.assert_array_equal(outputs(made, IDS)[0], outputs(proto, IDS)[0])


@pytest.mark.parametrize("kind", [np.float16, ml_dtypes.bfloat16, np.float64, np.int8, np.int32])
def test_equal_weights_of_any_type_are_one_and_only_floats_are_turned(kind: Any) -> None:
    values = (normal(40, 30) * 50).astype(kind)
    number = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
    weights = {"a": values, "b": values.copy(), "c": np.ascontiguousarray(values.T)}
    nodes = [
        helper.make_node("Gather", [name, "ids"], [f"{name}_rows"], axis=axis)
        for name, axis in (("a", 0), ("b", 0), ("c", 1))
    ]
    kinds = {f"{name}_rows": number for name in weights}
    proto = model_of(nodes, weights, {"ids": (INT64, ["n"])}, kinds)
    found, made = merged(proto)
    assert found == ({"b": "a", "c": "a"} if np.dtype(kind).kind not in "iu" else {"b": "a"})
    if kind is not ml_dtypes.bfloat16:  # which onnxruntime's Python has no arrays for
        for one, two in zip(outputs(made, IDS), outputs(proto, IDS), strict=True):
            np.testing.assert_array_equal(one, two)


def test_bits_decide() -> None:
    """NaN is NaN; zeros of two signs are two; one other element is enough."""
    plain = normal(ROWS, WIDTH)
    plain[3, 4] = np.nan
    signs, other = plain.copy(), plain.copy()
    plain[5, 6], signs[5, 6] = 0.0, -0.0
    other[7, 8] += 1
    names = {"a": plain, "b": plain.copy(), "c": signs, "d": other}
    nodes = [helper.make_node("Gather", [name, "ids"], [f"{name}_rows"]) for name in names]
    proto = model_of(nodes, names, {"ids": (INT64, ["n"])}, {f"{n}_rows": FLOAT for n in names})
    assert merged(proto)[0] == {"b": "a"}


def test_what_a_caller_may_replace_or_read_is_left_alone() -> None:
    proto = tied()
    proto.graph.input.append(helper.make_tensor_value_info("head", FLOAT, [WIDTH, ROWS]))
    assert merged(proto)[0] == {}
    proto = tied()
    proto.graph.output.append(helper.make_tensor_value_info("table", FLOAT, [ROWS, WIDTH]))
    assert merged(proto)[0] == {}


def test_vectors_and_filters_are_left_alone() -> None:
    """A normalisation may be folded into one of two layers whose filters are equal."""
    filters, bias = normal(4, 3, 3, 3), np.zeros(32, np.float32)
    nodes = [
        helper.make_node("Conv", ["x", "a"], ["f"]),
        helper.make_node("Conv", ["x", "b"], ["g"]),
        helper.make_node("Add", ["f", "g"], ["y"]),
        helper.make_node("Add", ["p", "q"], ["z"]),
    ]
    weights = {"a": filters, "b": filters.copy(), "p": bias, "q": bias.copy()}
    shape = ["n", 3, 8, 8]
    proto = model_of(nodes, weights, {"x": (FLOAT, shape)}, {"y": FLOAT, "z": FLOAT})
    assert merged(proto)[0] == {}


def test_small_ones_are_left_alone() -> None:
    square = normal(4, 4)
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["z"]),
        helper.make_node("MatMul", ["z", "b"], ["w"]),
        helper.make_node("MatMul", ["w", "c"], ["y"]),
    ]
    weights = {"a": square, "b": square.copy(), "c": np.ascontiguousarray(square.T)}
    proto = model_of(nodes, weights, {"x": (FLOAT, ["n", 4])}, {"y": FLOAT})
    assert merged(proto)[0] == {"b": "a"}
    assert passes.MergeWeights(min_elements=17)(ir.from_proto(proto)).merged == {}


def test_one_transpose_serves_all_also_in_branches() -> None:
    table = normal(40, 40)
    turned = {f"t{n}": np.ascontiguousarray(table.T) for n in range(3)}
    branches = {
        name: helper.make_graph(
            [helper.make_node("MatMul", ["x", weight], [f"{name}_out"])],
            name,
            [],
            [helper.make_tensor_value_info(f"{name}_out", FLOAT, None)],
        )
        for name, weight in (("then_branch", "t1"), ("else_branch", "t2"))
    }
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["x"]),
        helper.make_node("MatMul", ["x", "t0"], ["table.turned"]),  # a name that is taken
        helper.make_node("If", ["which"], ["z"], **branches),
        helper.make_node("Add", ["table.turned", "z"], ["y"]),
    ]
    inputs = {"ids": (INT64, ["n"]), "which": (TensorProto.BOOL, [])}
    proto = model_of(nodes, {"table": table, **turned}, inputs, {"y": FLOAT})
    found, made = merged(proto)
    assert found == {"t0": "table", "t1": "table", "t2": "table"}
    assert [node.op_type for node in made.graph.node].count("Transpose") == 1
    for which in (True, False):
        feeds = IDS | {"which": np.array(which)}
        np.testing.assert_array_equal(outputs(made, feeds)[0], outputs(proto, feeds)[0])


def test_a_symmetric_matrix_is_itself() -> None:
    half = normal(40, 40)
    proto = model_of(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        {"w": half + half.T},
        {"x": (FLOAT, ["n", 40])},
        {"y": FLOAT},
    )
    assert merged(proto)[0] == {}


@pytest.mark.parametrize("options", [{}, {"lossless": True}, {"bits": 6}, {"calibration": True}])
def test_a_tied_model_is_compressed_as_one_table(options: dict[str, Any], tmp_path: Path) -> None:
    path, small = tmp_path / "tied.onnx", tmp_path / "small.onnx"
    rows = normal(3000, WIDTH)
    onnx.save(tied(table=rows, head=np.ascontiguousarray(rows.T)), path)
    if options.pop("calibration", False):
        feeds = {"ids": np.random.default_rng(5).integers(0, 3000, 200)}
        np.savez(tmp_path / "feeds.npz", **feeds)
        options = {"calibration": tmp_path / "feeds.npz", "min_sqnr": 20.0}
    report = toolkit.compress(path, small, **options)
    assert any("stored once: 'head' is 'table'" in note for note in report.notes)
    alone = tmp_path / "alone.onnx"
    onnx.save(tied(table=rows, head=normal(WIDTH, 3000, seed=9)), alone)
    options.pop("calibration", None)
    assert report.compressed_bytes < 0.65 * toolkit.compress(alone, **options).compressed_bytes
    feeds = {"ids": np.arange(0, 3000, 7)}
    load, stream = (
        runtime.InferenceSession(small, providers=CPU, mode=mode).run(None, feeds)[0]
        for mode in ("load", "stream")
    )
    wanted = onnxruntime.InferenceSession(path, providers=CPU).run(None, feeds)[0]
    np.testing.assert_allclose(load, stream, rtol=0, atol=1e-5 * np.abs(wanted).max())
    assert np.linalg.norm(load - wanted) < 0.12 * np.linalg.norm(wanted)


def test_a_recipe_that_names_the_merged_weight_is_told(tmp_path: Path) -> None:
    path, recipe = tmp_path / "tied.onnx", tmp_path / "recipe.yaml"
    onnx.save(tied(), path)
    recipe.write_text("version: 1\nrules: [{match: head, settings: {bits: 5}}]\n", encoding="utf-8")
    with pytest.raises(InputError, match=r"head.*table"):
        toolkit.compress(path, tmp_path / "small.onnx", recipe=recipe)
