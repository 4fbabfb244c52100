# SPDX-License-Identifier: Apache-2.0
"""Open dimensions of inputs that the first layers fix."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

import toolkit
from tests.toolkit_models import save
from toolkit.errors import InputError
from toolkit.fixed_sizes import fixed_sizes, with_sizes
from toolkit.made_up_inputs import Sizes, resolve_shapes
from toolkit.signature import InputSpec

RNG = np.random.default_rng(4)


def one_input(text: str, rank: int, **weights: tuple[int, ...]) -> ir.Model:
    """A model of the nodes in `text`, with an input x of `rank` open dimensions."""
    shape = ", ".join(f"d{axis}" for axis in range(rank))
    stored = ", ".join(
        f"float[{', '.join(map(str, dims))}] {name} = {{{', '.join(['0.5'] * int(np.prod(dims)))}}}"
        for name, dims in weights.items()
    )
    head = f'<ir_version: 8, opset_import: ["" : 18]> g (float[{shape}] x) => (y)'
    return ir.from_onnx_text(f"{head} <{stored}> {{{text}}}")


@pytest.mark.parametrize(
    ("text", "rank", "weights", "expected"),
    [
        ("y = MatMul(x, w)", 3, {"w": (5, 7)}, {2: 5}),
        ("y = MatMul(w, x)", 2, {"w": (5, 7)}, {0: 7}),
        ("y = Gemm <transB = 1> (x, w)", 2, {"w": (5, 7)}, {1: 7}),
        ("y = Gemm <transA = 1> (x, w)", 2, {"w": (5, 7)}, {0: 5}),
        ("y = Conv <group = 2> (x, w)", 4, {"w": (4, 3, 1, 1)}, {1: 6}),
        ("y = ConvTranspose (x, w)", 3, {"w": (4, 3, 2)}, {1: 4}),
        ("a = Relu(x) y = LayerNormalization <axis = -2> (a, w)", 3, {"w": (3, 2)}, {1: 3, 2: 2}),
        ("a = Sub(x, m) y = Div(a, m)", 4, {"m": (3, 1, 1)}, {1: 3}),
        ("y, h = GRU <hidden_size = 2> (x, w, r)", 3, {"w": (1, 6, 9), "r": (1, 6, 2)}, {2: 9}),
        ("a = Transpose <perm = [0, 3, 1, 2]> (x) y = Conv(a, w)", 4, {"w": (4, 3, 1, 1)}, {3: 3}),
        ("a = MaxPool <kernel_shape = [2]> (x) y = MatMul(a, w)", 3, {"w": (5, 7)}, {}),
        ("a = Add(x, x) y = MatMul(a, w)", 2, {"w": (5, 7)}, {1: 5}),
        ("s = Shape(x) a = Reshape(x, s) y = MatMul(a, w)", 2, {"w": (5, 7)}, {}),
    ],
)
def test_layers_fix_the_sizes_of_what_they_take(
    text: str, rank: int, weights: dict[str, tuple[int, ...]], expected: dict[int, int]
) -> None:
    assert fixed_sizes(one_input(text, rank, **weights)) == ({"x": expected} if expected else {})


def test_axes_are_followed_through_added_and_removed_ones() -> None:
    text = "a = Unsqueeze(x, one) b = Squeeze(a, one) y = MatMul(b, w)"
    model = one_input(text, 2, w=(6, 2), one=(1,))
    model.graph.initializers["one"].const_value = ir.tensor(np.array([1]))
    assert fixed_sizes(model) == {"x": {1: 6}}


def test_a_symbol_that_is_known_is_known_everywhere() -> None:
    specs = [InputSpec("x", "float", ("n", "width")), InputSpec("z", "float", ("width", 3))]
    known = with_sizes(specs, {"x": {1: 40}})
    assert resolve_shapes(known, Sizes()) == {"x": (4, 40), "z": (40, 3)}
    assert with_sizes(specs, {}) == specs


def recurrent(path: Path, features: int) -> Path:
    """Steps and features open: x [steps, features], a batch axis added, an LSTM, and its state."""

    def array(*shape: int) -> np.ndarray:
        return (RNG.standard_normal(shape) / 8).astype(np.float32)

    nodes = [
        helper.make_node("Constant", [], ["axes"], value_ints=[1]),
        helper.make_node("Unsqueeze", ["x", "axes"], ["batched"]),
        helper.make_node("LSTM", ["batched", "w", "r", "b"], ["all", "y"], hidden_size=32),
    ]
    arrays = {"w": array(1, 128, features), "r": array(1, 128, 32), "b": array(1, 256)}
    given = [("x", TensorProto.FLOAT, ["dim_0", "dim_1"])]
    return save(path, nodes, arrays, given, [("y", TensorProto.FLOAT, [1, 1, 32])])


def test_a_recurrent_layer_says_how_many_features_it_takes(tmp_path: Path) -> None:
    found = toolkit.compress(recurrent(tmp_path / "m.onnx", 87))
    assert found.reached and "x float [4, 87]" in " ".join(found.notes)
    again = toolkit.compare(tmp_path / "m.onnx", tmp_path / "m.compressed.onnx")
    assert again.fidelity.sqnr_db >= 23


def test_inputs_that_cannot_be_made_are_named(tmp_path: Path) -> None:
    path = recurrent(tmp_path / "m.onnx", 87)
    model = ir.load(path)
    model.graph.inputs[0].shape = ir.Shape(["dim_0", 86])
    ir.save(model, path)
    with pytest.raises(InputError, match=r"--calibration \(inputs: x float \[dim_0, 86\]; "):
        toolkit.compress(path)
