# SPDX-License-Identifier: Apache-2.0
"""WordPiece tokenisation of lower-cased text, as BERT's uncased vocabularies expect it."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

LONGEST_WORD = 100


class WordPiece:
    """Tokeniser over a vocabulary: one token per line of `vocabulary`, its id the line number."""

    def __init__(self, vocabulary: str) -> None:
        self._ids = {token: index for index, token in enumerate(vocabulary.splitlines())}
        self._unknown, self._start, self._end, self._padding = (
            self._ids[token] for token in ("[UNK]", "[CLS]", "[SEP]", "[PAD]")
        )

    def encode(self, text: str, longest: int) -> list[int]:
        """Ids of the text between [CLS] and [SEP], cut to at most `longest` ids in all."""
        pieces = [piece for word in _words(text) for piece in self._pieces(word)]
        return [self._start, *pieces[: longest - 2], self._end]

    def encode_batch(self, texts: Sequence[str], longest: int) -> dict[str, npt.NDArray[np.int64]]:
        """input_ids, attention_mask and token_type_ids, int64 (texts, longest text of them)."""
        rows = [self.encode(text, longest) for text in texts]
        ids = np.full((len(rows), max(map(len, rows))), self._padding, np.int64)
        mask = np.zeros_like(ids)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = row
            mask[index, : len(row)] = 1
        return {
            "input_ids": ids,
            "attention_mask": mask,
            "token_type_ids": np.zeros_like(ids),
        }

    def _pieces(self, word: str) -> list[int]:
        if len(word) > LONGEST_WORD:
            return [self._unknown]
        found, start = [], 0
        while start < len(word):
            prefix = "##" if start else ""
            for end in range(len(word), start, -1):
                index = self._ids.get(prefix + word[start:end])
                if index is not None:
                    break
            else:
                return [self._unknown]
            found.append(index)
            start = end
        return found


def _words(text: str) -> list[str]:
    """Lower-cased words without accents; each punctuation or Chinese character is one word."""
    parts = []
    for character in unicodedata.normalize("NFD", text.lower()):
        category = unicodedata.category(character)
        if character.isspace():
            parts.append(" ")
        elif category == "Mn" or category.startswith("C"):
            continue
        elif _stands_alone(character, category):
            parts.append(f" {character} ")
        else:
            parts.append(character)
    return "".join(parts).split()


def _stands_alone(character: str, category: str) -> bool:
    ascii_symbol = character.isascii() and not character.isalnum()
    return ascii_symbol or category.startswith("P") or "\u4e00" <= character <= "\u9fff"
