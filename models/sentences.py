# SPDX-License-Identifier: Apache-2.0
"""Real English sentences, taken at run time from the prose of a project's documentation."""

from __future__ import annotations

import functools
import hashlib
import re

from models.fetch import read_members
from models.packages import DJANGO

SHORTEST, LONGEST = 50, 240
MARKUP = re.compile(r"[`*|<>{}\[\]\\=_#~^$%]|::|\.\. |https?:|^[-\d]")
SENTENCE_END = re.compile(r"(?<=[a-z]{2}[.!?])\s+(?=[A-Z])")


@functools.cache
def english_sentences(count: int, skip: int = 0) -> tuple[str, ...]:
    """`count` different sentences of 50 to 240 characters after the first `skip` of them.

    They come from unindented paragraphs without markup. Their order is that of their sha256, so
    neighbours come from different pages. Raises `DataUnavailable` without the archive, and
    `ValueError` when it does not hold so many.
    """
    found: set[str] = set()
    for name, content in read_members(DJANGO, (".txt",)).items():
        if "/docs/" not in name or "/releases/" in name or "/man/" in name:
            continue
        for paragraph in re.split(r"\n\s*\n", content.decode("utf-8")):
            if any(line[:1].isspace() for line in paragraph.splitlines()):
                continue
            for sentence in SENTENCE_END.split(" ".join(paragraph.split())):
                if _is_plain(sentence):
                    found.add(sentence)
    ordered = sorted(found, key=lambda text: hashlib.sha256(text.encode()).digest())
    if len(ordered) < skip + count:
        raise ValueError(f"{DJANGO} holds {len(ordered)} sentences, expected {skip + count}")
    return tuple(ordered[skip : skip + count])


def _is_plain(text: str) -> bool:
    return (
        SHORTEST <= len(text) <= LONGEST
        and text[0].isupper()
        and text[-1] in ".!?"
        and MARKUP.search(text) is None
    )
