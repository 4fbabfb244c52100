# SPDX-License-Identifier: Apache-2.0
"""A small causal transformer for language.

Vaswani et al. 2017, "Attention is all you need", section 3, the decoder without attention to an
encoder, with normalisation before each part (Radford et al. 2019, section 2.3), learned positions
and the embedding shared with the output.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class SmallTransformer(nn.Module):
    """Predicts each next token.

    Args:
        words: tokens of the vocabulary.
        positions: longest sequence.
        width: of the embeddings.
        layers: blocks of attention and perceptron.
        heads: of each attention; divides ``width``.

    With d the width, the parameters are words·d + positions·d + layers·(12 d² + 13 d) + 2 d.

    Raises:
        ValueError: the heads do not divide the width.
    """

    def __init__(
        self, words: int, positions: int = 128, width: int = 128, layers: int = 4, heads: int = 4
    ) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width is {width}, expected a multiple of the {heads} heads")
        self.tokens = nn.Embedding(words, width)
        self.places = nn.Embedding(positions, width)
        nn.init.normal_(self.tokens.weight, std=0.02)
        nn.init.normal_(self.places.weight, std=0.02)
        self.blocks = nn.Sequential(*(_Block(width, heads) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits float32 (batch, positions, words) of int64 tokens (batch, positions)."""
        places = torch.arange(tokens.shape[1], device=tokens.device)
        value = self.norm(self.blocks(self.tokens(tokens) + self.places(places)))
        return functional.linear(value, self.tokens.weight)


class _Block(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.perceptron = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, value: Tensor) -> Tensor:
        parts = self.query_key_value(self.norm1(value)).chunk(3, -1)
        query, key, content = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts
        )
        mixed = functional.scaled_dot_product_attention(query, key, content, is_causal=True)
        value = value + self.project(mixed.transpose(1, 2).flatten(2))
        return value + self.perceptron(self.norm2(value))
