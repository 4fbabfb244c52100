# SPDX-License-Identifier: Apache-2.0
"""Byte-pair tokens of the Llama vocabulary as `llama2.c` stores it, and short texts to score."""

from __future__ import annotations

import struct

START = 1
FIRST_BYTE = 3
VOCABULARY = 32_000

STORIES = (
    "Once upon a time, there was a little girl named Lily. She had a red ball and she loved to "
    "play with it in the park. One day, the wind was very strong and it took her ball away. Lily "
    "was sad and she started to cry. A big dog saw her and ran after the ball. The dog came back "
    "with the ball in his mouth. Lily was so happy. She gave the dog a big hug and they played "
    "together all day. From that day on, they were best friends.",
    "Once there was a boy called Tom who did not want to share his toys. His friend Sam came to "
    "the house and asked to play with the blue car. Tom said no and held the car very tight. Sam "
    "felt sad and went home. Then Tom was alone, and his toys were not fun any more. His mom told "
    "him that it is nice to share. Tom went to Sam and said he was sorry. He gave him the car to "
    "play with. Sam smiled and they built a big tower together.",
    "A small bird lived in a tall tree. Every morning the bird sang a song for the sun. One day it "
    "began to rain and the bird could not find any food. A kind rabbit saw that the bird was wet "
    'and hungry. The rabbit said, "Come into my house, it is warm here." They ate some bread and '
    "waited until the rain stopped. When the sun came out, the bird sang its best song to say "
    "thank you.",
)
CALIBRATION_STORY = (
    "One day, Ben and his dad went to the sea. The water was blue and the sand was hot. Ben found "
    "a shiny shell and put it in his bag. He saw a crab and wanted to touch it, but his dad said "
    "to be careful. They made a castle with a tall tower and a flag. Then a wave came and the "
    'castle was gone. Ben laughed and said, "We can make a new one!" They worked until it was '
    "time to go home. That night Ben put the shell next to his bed and dreamed of the sea."
)


class StoryTokens:
    """Tokeniser over a `tokenizer.bin`: for each token its score, its length and its bytes."""

    def __init__(self, content: bytes) -> None:
        # The file begins with the longest length in newer versions, with a score of 0 in older.
        position = 0 if struct.unpack_from("<f", content)[0] == 0.0 else 4
        self._ids: dict[bytes, int] = {}
        self._scores: list[float] = []
        for index in range(VOCABULARY):
            score, length = struct.unpack_from("<fi", content, position)
            position += 8
            # The 256 tokens of single bytes come first; a later token of the same text wins.
            self._ids[content[position : position + length]] = index
            self._scores.append(score)
            position += length

    def encode(self, text: str) -> list[int]:
        """Ids of the text after the start token: the best scored pair is merged until none is."""
        pieces = [character.encode() for character in " " + text]
        while True:
            best, place = -float("inf"), -1
            for index in range(len(pieces) - 1):
                token = self._ids.get(pieces[index] + pieces[index + 1])
                if token is not None and self._scores[token] > best:
                    best, place = self._scores[token], index
            if place < 0:
                break
            pieces[place : place + 2] = [pieces[place] + pieces[place + 1]]
        ids = [START]
        for piece in pieces:
            token = self._ids.get(piece)
            ids += [FIRST_BYTE + byte for byte in piece] if token is None else [token]
        return ids
