# SPDX-License-Identifier: Apache-2.0
"""Names of the custom operators that a compressed model uses."""

from __future__ import annotations

DOMAIN = "toolkit"
DOMAIN_VERSION = 1

DECODE_WIDE = "DecodeWide"
DECODE_WIDE16 = "DecodeWide16"
WIDE_DECODERS = frozenset({DECODE_WIDE, DECODE_WIDE16})
TAKE_TENSOR = "TakeTensor"
TAKE_RANGE = "TakeRange"
JOIN_FLOAT = "JoinFloat"  # float32
JOIN_HALF = "JoinHalf"  # float16, bfloat16

# FORMAT.md 1: the coder byte of a blob -> the operator that decodes it, and the coder's name.
SMALL_DECODERS = {2: "DecodeAdaptive", 3: "DecodeHuffman", 4: "DecodeFixed"}
SMALL_CODER_NAMES = {2: "adaptive", 3: "huffman", 4: "fixed"}
