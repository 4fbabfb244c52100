# SPDX-License-Identifier: Apache-2.0
"""Text of the user as numbers of tokens: words of a vocabulary, or pairs of sentences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from models.data.image_folder import FolderError

PAD, UNKNOWN, START, END = 0, 1, 2, 3
_SPECIAL = ("<pad>", "<unknown>", "<start>", "<end>")


@dataclass(frozen=True)
class Vocabulary:
    """Words by number; the first four stand for padding, unknown words, start and end."""

    words: tuple[str, ...]

    @classmethod
    def of(cls, lines: Iterable[str], limit: int = 10_000) -> Vocabulary:
        """The ``limit`` commonest words of ``lines``, split at white space."""
        counts = Counter(word for line in lines for word in line.split())
        ordered = sorted(counts, key=lambda word: (-counts[word], word))
        return cls((*_SPECIAL, *ordered[: limit - len(_SPECIAL)]))

    def __len__(self) -> int:
        return len(self.words)

    def numbers(self, line: str) -> list[int]:
        """The numbers of the words of ``line``, closed by `END`."""
        index = {word: number for number, word in enumerate(self.words)}
        return [*(index.get(word, UNKNOWN) for word in line.split()), END]


def read_lines(path: str | Path) -> list[str]:
    """Lines of a UTF-8 file that are not empty.

    Raises:
        FolderError: the file is missing, not UTF-8, or empty.
    """
    file = Path(path)
    try:
        lines = [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except OSError as error:
        raise FolderError(f"{file}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise FolderError(f"{file}: byte {error.start} is not UTF-8") from error
    if not lines:
        raise FolderError(f"{file}: no text in it")
    return lines


def token_sequences(lines: Sequence[str], vocabulary: Vocabulary, length: int) -> Tensor:
    """The text as one stream, cut into runs: int64 (runs, length + 1), each run beginning with the
    last token of the run before, so that its first ``length`` tokens predict its last ones.

    Raises:
        FolderError: the text has not enough tokens for one run.
    """
    index = {word: number for number, word in enumerate(vocabulary.words)}
    stream = [START]
    for line in lines:
        stream += [*(index.get(word, UNKNOWN) for word in line.split()), END]
    runs = (len(stream) - 1) // length
    if runs < 1:
        raise FolderError(f"the text has {len(stream)} tokens, expected more than {length}")
    starts = torch.arange(runs).unsqueeze(1) * length
    return torch.tensor(stream)[starts + torch.arange(length + 1)]


def sentence_pairs(
    source: str | Path,
    target: str | Path,
    vocabularies: tuple[Vocabulary, Vocabulary],
    limit: int = 50,
) -> tuple[Tensor, Tensor]:
    """Lines of two files that translate each other, int64 (pairs, longest sentence), padded.

    Pairs with more than ``limit`` tokens in either sentence are left out.

    Raises:
        FolderError: a file cannot be read, they have different numbers of lines, or no pair is
            short enough.
    """
    lines = read_lines(source), read_lines(target)
    if len(lines[0]) != len(lines[1]):
        raise FolderError(
            f"{source} has {len(lines[0])} lines and {target} {len(lines[1])}, expected the same"
        )
    pairs = [
        (first, second)
        for one, other in zip(*lines, strict=True)
        if len(first := vocabularies[0].numbers(one)) <= limit
        and len(second := vocabularies[1].numbers(other)) <= limit
    ]
    if not pairs:
        raise FolderError(f"{source}: no pair of sentences has at most {limit} tokens")
    sources, targets = zip(*pairs, strict=True)
    return _padded(sources), _padded(targets)


def _padded(sentences: Sequence[list[int]]) -> Tensor:
    longest = max(map(len, sentences))
    return torch.tensor([[*numbers, *[PAD] * (longest - len(numbers))] for numbers in sentences])
