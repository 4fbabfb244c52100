# SPDX-License-Identifier: Apache-2.0
"""Stream mode: a product whose weight is decoded for it alone becomes one node that does both.

Rewritten are, in a model that `graph_fuse` has fused,

    MatMul(x, w)          -> DecodeMatMul, DecodeMatMulLookup          w [inputs, outputs]
    MatMul(w, x)          -> DecodeLeftMatMul, DecodeLeftMatMulLookup  w [outputs, inputs]
    Gemm(x, w[, bias])    -> DecodeGemm, DecodeGemmLookup
    Conv(x, w[, bias])    -> DecodeConv, DecodeConvLookup              w of 3 dimensions or more

with `w = DecodeDequantize(...)` or `DecodeLookup(...)` read by nothing else, of a type that the
provider multiplies, and made in the product's graph; on the CPU also around it, where the product
is in a branch of an If: a branch that is not taken then decodes nothing. The weight lives for the
time of the product, in whatever order ONNX Runtime runs the nodes.

All other weights keep their own node: those that a body of Loop or Scan reads from outside, which
would be decoded in every turn; of MatMul with more dimensions; of Gemm on the left; and of Conv
with dilated SAME pads, which ONNX Runtime refuses to run in any form.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection

import onnx
from onnx import TensorProto, helper

from runtime.graph_fuse import replace_node
from runtime.graph_values import DOMAIN, Node, Scope, count_uses, drop_unused, scan

_SUFFIXES = {"DecodeDequantize": "", "DecodeLookup": "Lookup"}
_NUM_TABLES = {"DecodeDequantize": 2, "DecodeLookup": 1}  # inputs behind the blob
# What `graph_pack` has made unpacks weights into the same memory, those of products at times.
_UNPACKED = ("ConvPacked", "ConvPackedCodebook")
_UNPACKED_AT_TIMES = ("MatMulPacked", "MatMulPackedCodebook")
_SAME = (b"SAME_UPPER", b"SAME_LOWER")

CPU_TYPES = frozenset({TensorProto.FLOAT})
"""Types that the CPU provider multiplies without a cast."""
CUDA_TYPES = frozenset({TensorProto.FLOAT, TensorProto.FLOAT16})
"""Types that the CUDA provider multiplies."""


def fuse_products(
    model: onnx.ModelProto,
    types: Collection[int],
    session: int = 0,
    *,
    ahead: bool = False,
    ahead_bytes: int = 0,
    branches: bool = True,
) -> int:
    """Fuse decoding and products in the whole model.

    Args:
        model: a model that `graph_fuse.fuse` has fused, which is changed.
        types: element types of weights whose products are rewritten.
        session: a number that no other session has, by which the nodes of this one share memory
            for weights on a device; 0 for none.
        ahead: number the places of the nodes in the outermost graph, so that weights are decoded
            ahead of their use, those of neighbours together.
        ahead_bytes: of weights that are decoded together, at most; 0 leaves it to the ops.
        branches: decode in a branch of an If what only the branch reads. Blobs are then constants
            of another graph than the node's.

    Returns:
        How many products were fused.
    """
    root = scan(model.graph, overridable=model.ir_version >= 4)
    uses = count_uses(root)
    fused = place = 0
    for scope in root.walk():
        for node in scope.nodes:
            new = _fused(scope, node, uses, types, branches)
            if new is not None:
                replace_node(node, new)
                fused += 1
            elif node.domain != DOMAIN or node.op_type not in _UNPACKED + _UNPACKED_AT_TIMES:
                continue
            if session:
                node.proto.attribute.append(helper.make_attribute("session", session))
            if ahead and scope is root and node.op_type not in _UNPACKED_AT_TIMES:
                node.proto.attribute.append(helper.make_attribute("place", place))
                if ahead_bytes:
                    node.proto.attribute.append(helper.make_attribute("ahead_bytes", ahead_bytes))
                place += 1
    drop_unused(root)
    return fused


def _fused(
    scope: Scope,
    node: Node,
    uses: Counter[str],
    types: Collection[int],
    branches: bool,
) -> onnx.NodeProto | None:
    """Return the node that takes the place of a product; None where it stays."""
    if node.domain not in ("", "ai.onnx") or node.op_type not in ("MatMul", "Gemm", "Conv"):
        return None
    left, decode = False, _decoder(scope, node.inputs[1], uses, branches)
    if decode is None and node.op_type == "MatMul":
        left, decode = True, _decoder(scope, node.inputs[0], uses, branches)
    if decode is None:
        return None
    rank = len(decode.attributes()["shape"])
    if not (rank > 2 and has_known_pads(node) if node.op_type == "Conv" else rank == 2):
        return None
    if _type_of(scope, decode.inputs[1]) not in types:
        return None
    inputs = [node.inputs[1 if left else 0], *decode.inputs]
    bias = node.inputs[2] if len(node.inputs) > 2 else ""
    if bias:
        inputs += [""] * (2 + _NUM_TABLES[decode.op_type] - len(inputs)) + [bias]
    made = onnx.NodeProto(
        op_type=f"Decode{'Left' if left else ''}{node.op_type}{_SUFFIXES[decode.op_type]}",
        domain=DOMAIN,
        name=node.label,
        input=inputs,
        output=node.outputs,
    )
    made.attribute.extend(decode.proto.attribute)
    made.attribute.extend(node.proto.attribute)
    return made


def _decoder(scope: Scope, weight: str, uses: Counter[str], branches: bool) -> Node | None:
    """The node that decodes the weight, where it may move to its only reader in the scope."""
    home, decode = scope.home(weight), scope.producer(weight)
    if home is None or decode is None or uses[weight] != 1:
        return None
    if decode.domain != DOMAIN or decode.op_type not in _SUFFIXES:
        return None
    inner = scope
    while inner is not home:
        owner, parent = inner.owner, inner.parent
        branch = owner is not None and owner.op_type == "If" and owner.domain in ("", "ai.onnx")
        if not (branches and branch) or parent is None:
            return None
        inner = parent
    # A name of the inner graph may hide one of the outer.
    if any(scope.home(name) is not home.home(name) for name in decode.inputs if name):
        return None
    return decode


def has_known_pads(node: Node) -> bool:
    """Whether the op knows the output's size: of dilated SAME pads ONNX Runtime knows none."""
    attributes = node.attributes()
    dilated = any(size != 1 for size in attributes.get("dilations", ()))
    return not (dilated and attributes.get("auto_pad") in _SAME)


def _type_of(scope: Scope, name: str) -> int | None:
    """The element type of a scale or codebook: a constant, or itself looked up in one."""
    tensor, node = scope.initializer(name), scope.producer(name)
    if tensor is None and node is not None and node.op_type in ("Gather", "DecodeLookup"):
        tensor = scope.initializer(node.inputs[1 if node.op_type == "DecodeLookup" else 0])
    return None if tensor is None else tensor.data_type
