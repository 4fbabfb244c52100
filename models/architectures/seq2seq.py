# SPDX-License-Identifier: Apache-2.0
"""Translation by LSTMs with attention.

Luong, Pham and Manning 2015, "Effective approaches to attention-based neural machine translation":
stacked LSTMs, global attention with the "general" score (section 3.1), without input feeding, so
that all positions of a given target are computed at once.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Seq2Seq(nn.Module):
    """Encoder, decoder and attention over the encoder's states.

    Args:
        source_words: tokens of the source vocabulary.
        target_words: tokens of the target vocabulary.
        width: of the embeddings and the states.
        layers: LSTM layers of encoder and of decoder.
        dropout: probability between layers and before the logits.
    """

    def __init__(
        self,
        source_words: int,
        target_words: int,
        width: int = 500,
        layers: int = 2,
        dropout: float = 0.3,
    ) -> None:
        super().__init__()
        between = dropout if layers > 1 else 0.0
        self.source_embedding = nn.Embedding(source_words, width)
        self.target_embedding = nn.Embedding(target_words, width)
        self.encoder = nn.LSTM(width, width, layers, batch_first=True, dropout=between)
        self.decoder = nn.LSTM(width, width, layers, batch_first=True, dropout=between)
        self.score = nn.Linear(width, width, bias=False)
        self.combine = nn.Linear(2 * width, width, bias=False)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(width, target_words)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """Logits of the token after each target position.

        Args:
            source: int64 (batch, source positions).
            target: int64 (batch, target positions), beginning with the start token.

        Returns:
            float32 (batch, target positions, target words).
        """
        memory, state = self.encoder(self.source_embedding(source))
        return self._decode(memory, state, target)[0]

    def greedy(self, source: Tensor, start: int, end: int, limit: int = 100) -> Tensor:
        """The likeliest token after token, until all sentences have ended.

        Args:
            source: int64 (batch, source positions).
            start: token that begins a target.
            end: token that ends it; behind it stand more of it.
            limit: most tokens.

        Returns:
            int64 (batch, positions up to ``limit``).
        """
        with torch.no_grad():
            memory, state = self.encoder(self.source_embedding(source))
            token = torch.full((len(source), 1), start, device=source.device)
            found: list[Tensor] = []
            ended = torch.zeros_like(token, dtype=torch.bool)
            while len(found) < limit and not bool(ended.all()):
                logits, state = self._decode(memory, state, token)
                token = logits.argmax(-1).masked_fill(ended, end)
                ended = ended | (token == end)
                found.append(token)
            return torch.cat(found, 1)

    def _decode(
        self, memory: Tensor, state: tuple[Tensor, Tensor], target: Tensor
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        hidden, state = self.decoder(self.target_embedding(target), state)
        weights = torch.softmax(self.score(hidden) @ memory.transpose(1, 2), -1)
        context = weights @ memory
        attended = torch.tanh(self.combine(torch.cat([context, hidden], -1)))
        return self.output(self.dropout(attended)), state
