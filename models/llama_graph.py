# SPDX-License-Identifier: Apache-2.0
"""Writes a Llama as an ONNX graph at opset 21: RMS norms, rotary positions, gated forward layers.

The table of the words is one initializer, used by the Gather at the start and by the Gemm
(transB = 1) at the end.
"""

from __future__ import annotations

import numpy as np

from models.onnx_graph import FLOAT, INT64, Array, GraphBuilder

WIDTH, HIDDEN, LAYERS, HEADS, VOCABULARY, LONGEST = 288, 768, 6, 6, 32_000, 256
HEAD = WIDTH // HEADS
SHAPES = {
    "words": (VOCABULARY, WIDTH),
    "attention_norm": (LAYERS, WIDTH),
    "query": (LAYERS, WIDTH, WIDTH),
    "key": (LAYERS, WIDTH, WIDTH),
    "value": (LAYERS, WIDTH, WIDTH),
    "output": (LAYERS, WIDTH, WIDTH),
    "forward_norm": (LAYERS, WIDTH),
    "gate": (LAYERS, HIDDEN, WIDTH),
    "down": (LAYERS, WIDTH, HIDDEN),
    "up": (LAYERS, HIDDEN, WIDTH),
    "last_norm": (WIDTH,),
    "cosine": (LONGEST, HEAD // 2),
    "sine": (LONGEST, HEAD // 2),
}


def _halves(matrix: Array) -> Array:
    """Rows of each head reordered: rotary pairs (2 i, 2 i + 1) become (i, i + half)."""
    return matrix.reshape(HEADS, HEAD // 2, 2, -1).swapaxes(1, 2).reshape(WIDTH, -1)


class _LlamaWriter:
    def __init__(self, tensors: dict[str, Array]) -> None:
        self.tensors = tensors
        self.graph = GraphBuilder("stories15m", opset=21)

    def norm(self, value: str, name: str, weight: Array) -> str:
        """Root mean square normalisation over the last axis."""
        graph = self.graph
        square = graph.node("Mul", [value, value], f"{name}.square")
        axis = graph.constant([-1], "last_axis")
        mean = graph.node("ReduceMean", [square, axis], f"{name}.mean", keepdims=1)
        safe = graph.node("Add", [mean, graph.constant(1e-5, "epsilon")], f"{name}.safe")
        root = graph.node("Sqrt", [safe], f"{name}.root")
        scaled = graph.node("Div", [value, root], f"{name}.scaled")
        return graph.node("Mul", [scaled, graph.weight(f"{name}.weight", weight)], name)

    def rotate(self, value: str, name: str) -> str:
        """Rotary position embedding of (batch, heads, sequence, head)."""
        graph = self.graph
        first, second = (
            graph.node(
                "Slice",
                [
                    value,
                    graph.constant([half * HEAD // 2], f"half{half}"),
                    graph.constant([(half + 1) * HEAD // 2], f"half{half + 1}"),
                    graph.constant([-1], "last_axis"),
                ],
                f"{name}.half{half}",
            )
            for half in (0, 1)
        )

        def product(half: str, table: str) -> str:
            return graph.node("Mul", [half, table], f"{half}.{table}")

        turned = [
            graph.node("Sub", [product(first, "cosine"), product(second, "sine")], f"{name}.real"),
            graph.node("Add", [product(first, "sine"), product(second, "cosine")], f"{name}.imag"),
        ]
        return graph.node("Concat", turned, f"{name}.rotated", axis=-1)

    def heads(self, value: str, name: str, matrix: Array) -> str:
        """Projection to (batch, heads, sequence, head)."""
        projected = self.graph.matmul_add(value, name, matrix.T)
        shape = self.graph.constant([0, 0, HEADS, HEAD], "head_shape")
        split = self.graph.node("Reshape", [projected, shape], f"{name}.split")
        return self.graph.node("Transpose", [split], f"{name}.heads", perm=[0, 2, 1, 3])

    def layer(self, hidden: str, index: int) -> str:
        graph, tensors, name = self.graph, self.tensors, f"layers.{index}"
        value = self.norm(hidden, f"{name}.attention_norm", tensors["attention_norm"][index])
        query, key = (
            self.rotate(
                self.heads(value, f"{name}.{part}", _halves(tensors[part][index])),
                f"{name}.{part}",
            )
            for part in ("query", "key")
        )
        content = self.heads(value, f"{name}.value", tensors["value"][index])
        key = graph.node("Transpose", [key], f"{name}.key.columns", perm=[0, 1, 3, 2])
        scores = graph.node("MatMul", [query, key], f"{name}.scores")
        scores = graph.node(
            "Mul", [scores, graph.constant(HEAD**-0.5, "scale")], f"{scores}.scaled"
        )
        scores = graph.node("Add", [scores, "future"], f"{scores}.masked")
        weights = graph.node("Softmax", [scores], f"{name}.attention", axis=-1)
        mixed = graph.node("MatMul", [weights, content], f"{name}.mixed")
        mixed = graph.node("Transpose", [mixed], f"{name}.mixed.rows", perm=[0, 2, 1, 3])
        shape = graph.constant([0, 0, WIDTH], "flat_shape")
        mixed = graph.node("Reshape", [mixed, shape], f"{name}.mixed.flat")
        mixed = graph.matmul_add(mixed, f"{name}.output", tensors["output"][index].T)
        hidden = graph.node("Add", [hidden, mixed], f"{name}.attention.residual")
        value = self.norm(hidden, f"{name}.forward_norm", tensors["forward_norm"][index])
        gate = graph.matmul_add(value, f"{name}.gate", tensors["gate"][index].T)
        sigmoid = graph.node("Sigmoid", [gate], f"{name}.sigmoid")
        gate = graph.node("Mul", [gate, sigmoid], f"{name}.silu")
        up = graph.matmul_add(value, f"{name}.up", tensors["up"][index].T)
        wide = graph.node("Mul", [gate, up], f"{name}.gated")
        down = graph.matmul_add(wide, f"{name}.down", tensors["down"][index].T)
        return graph.node("Add", [hidden, down], f"{name}.residual")

    def positions(self) -> None:
        """Rotary tables and the causal mask, cut to the length of the input."""
        graph = self.graph
        length = graph.node("Shape", ["input_ids"], "length", start=1, end=2)
        zero = graph.constant([0], "half0")
        for table in ("cosine", "sine"):
            whole = graph.weight(f"rotary.{table}", self.tensors[table])
            graph.node("Slice", [whole, zero, length, zero], table)
        square = graph.node("Concat", [length, length], "square", axis=0)
        lowest = graph.constant(float(np.finfo(np.float32).min), "lowest")
        full = graph.node("Expand", [lowest, square], "all_masked")
        graph.node("Trilu", [full, graph.constant(1, "next")], "future", upper=1)


def llama_model(tensors: dict[str, Array]) -> bytes:
    """Bytes of the ONNX file; `tensors` as in `SHAPES`, float32, matrices (out, in).

    Input `input_ids`, int64 (batch, sequence) with at most 256 tokens; output `logits`, float32
    (batch, sequence, 32000).
    """
    writer = _LlamaWriter(tensors)
    graph = writer.graph
    words = graph.weight("words", writer.tensors["words"])
    writer.positions()
    hidden = graph.node("Gather", [words, "input_ids"], "embedded")
    for index in range(LAYERS):
        hidden = writer.layer(hidden, index)
    hidden = writer.norm(hidden, "last_norm", writer.tensors["last_norm"])
    rows = graph.node("Reshape", [hidden, graph.constant([-1, WIDTH], "rows_shape")], "rows")
    flat = graph.node("Gemm", [rows, words], "flat_logits", transB=1)
    size = graph.node("Shape", ["input_ids"], "size")
    shape = [size, graph.constant([VOCABULARY], "vocabulary")]
    shape_name = graph.node("Concat", shape, "logits_shape", axis=0)
    graph.node("Reshape", [flat, shape_name], "logits")
    axes = ("batch", "sequence")
    return graph.finish({"input_ids": (INT64, axes)}, {"logits": (FLOAT, (*axes, VOCABULARY))})
