# SPDX-License-Identifier: Apache-2.0
"""Multiply-accumulates of small graphs, counted by hand."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from passes.count_macs import count_macs

LAYERS = {
    # 4 filters of 2 channels (2 groups) of 3 x 3, at 6 x 6 positions
    "Conv": ([(4, 2, 3, 3)], {"group": 2}, ["N", 4, 8, 8], 4 * 2 * 9 * 36),
    "MatMul": ([(8, 5)], {}, ["N", 7, 8], 8 * 5 * 7),
    "Gemm": ([(8, 5)], {}, ["N", 8], 8 * 5),
    # W [1, 3 * 6, 8] and R [1, 3 * 6, 6], 5 steps
    "GRU": ([(1, 18, 8), (1, 18, 6)], {"hidden_size": 6}, [5, "N", 8], 5 * 18 * 14),
}


@pytest.mark.parametrize("kind", LAYERS)
def test_of_one_sample_and_of_several(kind: str) -> None:
    shapes, attributes, dims, macs = LAYERS[kind]
    weights = [
        numpy_helper.from_array(np.zeros(shape, np.float32), f"w{index}")
        for index, shape in enumerate(shapes)
    ]
    node = helper.make_node(kind, ["x", *(w.name for w in weights)], ["y"], **attributes)
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, d) for n, d in (("x", dims),)]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    model = ir.from_proto(
        helper.make_model(helper.make_graph([node], "g", values, [output], weights))
    )
    assert count_macs(model) == macs
    assert count_macs(model, {"x": tuple(3 if d == "N" else int(d) for d in dims)}) == 3 * macs
    model.graph.inputs[0].shape = ir.Shape([-1 if d == "N" else d for d in dims])
    assert count_macs(model) == macs
    model.graph.inputs[0].shape = ir.Shape(dims)
    assert "N" in str(model.graph.inputs[0].shape)  # as it was
