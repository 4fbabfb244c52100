# SPDX-License-Identifier: Apache-2.0
"""Raises a model's ONNX opset to the lowest one that the decoders of compressed weights run
under."""

from __future__ import annotations

from math import prod

import onnx
from onnx import version_converter

from passes.errors import ModelError, one_line

OLDEST_OPSET = 7
LOWEST_OPSET = 13
_DETACHED_ELEMENTS = 1024


def default_opset(proto: onnx.ModelProto) -> int:
    """The version of ONNX's own operators that the model imports; 1 where it names none."""
    versions = [o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")]
    return max(versions, default=1)


def raise_opset(proto: onnx.ModelProto) -> onnx.ModelProto:
    """``proto`` itself, or a converted copy where its opset is 7 to 12; inputs and outputs keep
    their names.

    Large initializers are taken out during the conversion: they keep their bits, whatever their
    type, and external data stays external. Raises ModelError for an older opset or if the
    conversion fails.
    """
    version = default_opset(proto)
    if version >= LOWEST_OPSET:
        return proto
    if version < OLDEST_OPSET:
        raise ModelError(f"the model has opset {version}; {OLDEST_OPSET} is the oldest supported")
    if proto.functions:
        raise ModelError(f"the model has opset {version} and functions, which cannot be converted")
    light = onnx.ModelProto()
    light.CopyFrom(_without_initializers(proto))
    listed = {value.name for value in proto.graph.input}
    detached = {}
    for tensor in proto.graph.initializer:
        external = tensor.data_location == onnx.TensorProto.EXTERNAL
        if external or prod(tensor.dims) > _DETACHED_ELEMENTS:
            detached[tensor.name] = tensor
        else:
            light.graph.initializer.append(tensor)
        if tensor.name not in listed:  # the converter expects the old form: initializers are inputs
            value = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            light.graph.input.append(value)
    try:
        converted = version_converter.convert_version(light, LOWEST_OPSET)
    except Exception as error:  # the converter's own C++ exceptions have no common base
        raise ModelError(
            f"the model has opset {version} and cannot be converted to {LOWEST_OPSET}: "
            f"{one_line(error)}"
        ) from error
    converted.graph.initializer.extend(detached.values())
    names = {tensor.name for tensor in proto.graph.initializer}
    kept = [v for v in converted.graph.input if v.name in listed or v.name not in names]
    del converted.graph.input[:]
    converted.graph.input.extend(kept)
    converted.metadata_props.extend(
        p for p in proto.metadata_props if p.key not in {q.key for q in converted.metadata_props}
    )
    converted.ir_version = max(converted.ir_version, proto.ir_version)
    _keep_foreign_opsets(proto, converted)
    return converted


def _keep_foreign_opsets(source: onnx.ModelProto, target: onnx.ModelProto) -> None:
    known = {entry.domain for entry in target.opset_import}
    target.opset_import.extend(
        o for o in source.opset_import if o.domain not in known | {"ai.onnx"}
    )


def _without_initializers(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy without the main graph's initializers, built so that these are not copied on the
    way."""
    copy = onnx.ModelProto(ir_version=proto.ir_version)
    copy.opset_import.extend(proto.opset_import)
    copy.metadata_props.extend(proto.metadata_props)
    copy.graph.name = proto.graph.name
    copy.graph.node.extend(proto.graph.node)
    copy.graph.input.extend(proto.graph.input)
    copy.graph.output.extend(proto.graph.output)
    copy.graph.value_info.extend(proto.graph.value_info)
    return copy
