# SPDX-License-Identifier: Apache-2.0
"""A small builder of ONNX graphs: values are names, weights become float32 initializers.

Float weights stay plain initializers under speaking names, one per tensor of the network, so that
a compressor meets them as it would in a file from an exporter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

Array = npt.NDArray[Any]
FLOAT, INT64 = int(TensorProto.FLOAT), int(TensorProto.INT64)


class GraphBuilder:
    """Collects nodes and initializers in the order of their use.

    `opset` is the version of the default domain in the file.
    """

    def __init__(self, name: str, opset: int) -> None:
        self._name = name
        self._opset = opset
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: dict[str, onnx.TensorProto] = {}

    def weight(self, name: str, value: Array) -> str:
        """Adds an initializer under `name` and returns the name; floats are stored as float32."""
        array = np.ascontiguousarray(value)
        if array.dtype.kind == "f":
            array = array.astype(np.float32)
        if name in self._initializers:
            raise ValueError(f"initializer {name!r} is added twice")
        self._initializers[name] = numpy_helper.from_array(array, name)
        return name

    def constant(self, value: Sequence[int] | int | float, name: str) -> str:
        """A small int64 vector, or a scalar of int64 or float32, stored once under `name`."""
        if name not in self._initializers:
            dtype = np.float32 if isinstance(value, float) else np.int64
            self.weight(name, np.asarray(value, dtype))
        return name

    def node(self, op_type: str, inputs: Sequence[str], name: str, **attributes: Any) -> str:
        """Adds a node with one output, called `name` like the node, and returns that name."""
        self._nodes.append(helper.make_node(op_type, inputs, [name], name=name, **attributes))
        return name

    def conv(
        self, value: str, name: str, weight: Array, bias: Array | None = None, **attributes: Any
    ) -> str:
        """Convolution of an NCHW value; `weight` is (out, in / group, height, width)."""
        inputs = [value, self.weight(f"{name}.weight", weight)]
        if bias is not None:
            inputs.append(self.weight(f"{name}.bias", bias))
        return self.node("Conv", inputs, name, **attributes)

    def batch_norm(
        self, value: str, name: str, scale_shift: Mapping[str, Array], epsilon: float
    ) -> str:
        """Batch normalisation by gamma, beta, mean and variance, each of shape (channels,)."""
        inputs = [value]
        for key in ("gamma", "beta", "mean", "variance"):
            inputs.append(self.weight(f"{name}.{key}", scale_shift[key]))
        return self.node("BatchNormalization", inputs, name, epsilon=epsilon)

    def linear(self, value: str, name: str, weight: Array, bias: Array) -> str:
        """Gemm of a (batch, in) value; `weight` is (in, out)."""
        inputs = [
            value,
            self.weight(f"{name}.weight", weight),
            self.weight(f"{name}.bias", bias),
        ]
        return self.node("Gemm", inputs, name)

    def matmul_add(self, value: str, name: str, weight: Array, bias: Array | None = None) -> str:
        """MatMul with `weight` (in, out), then Add of `bias` where given; any leading axes."""
        product = self.node("MatMul", [value, self.weight(f"{name}.weight", weight)], f"{name}.mm")
        if bias is None:
            return product
        return self.node("Add", [product, self.weight(f"{name}.bias", bias)], name)

    def finish(
        self,
        inputs: Mapping[str, tuple[int, Sequence[int | str]]],
        outputs: Mapping[str, tuple[int, Sequence[int | str]]],
    ) -> bytes:
        """Checks the model and returns its bytes; values are {name: (element type, shape)}."""
        graph = helper.make_graph(
            self._nodes,
            self._name,
            [helper.make_tensor_value_info(name, *spec) for name, spec in inputs.items()],
            [helper.make_tensor_value_info(name, *spec) for name, spec in outputs.items()],
            list(self._initializers.values()),
        )
        opset = helper.make_opsetid("", self._opset)
        model = helper.make_model(
            graph,
            opset_imports=[opset],
            ir_version=helper.find_min_ir_version_for([opset]),
            producer_name="models",
        )
        onnx.checker.check_model(model, full_check=True)
        return bytes(model.SerializeToString())
