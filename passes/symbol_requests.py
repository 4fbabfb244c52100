# SPDX-License-Identifier: Apache-2.0
"""What chains ask of the packing of symbols, and what they get."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from passes.settings import Coder, Coding


@dataclass(frozen=True, eq=False)
class SymbolRequest:
    """Symbols that a chain needs.

    Attributes:
        owner: The weight they belong to.
        symbols: int8 or int16 in the order they are coded in; any shape.
        view: The coder's three dimensions; their product is at least the number of symbols.
        shape: Dimensions of the value that the chain continues with.
        coder: ``auto`` takes the smallest.
        coding: The coder's options.
        trellis: Symbols of dependent quantisation, which the decoder turns into integers; only the
            wide coder knows them.
    """

    owner: str
    symbols: np.ndarray
    view: tuple[int, int, int]
    shape: tuple[int, ...]
    coder: Coder
    coding: Coding = Coding()
    trellis: bool = False


@dataclass(frozen=True, eq=False)
class PackedSymbols:
    """What became of a request: its value in the graph, its coder, and its share of the blob in
    bytes."""

    value: ir.Value
    coder: str
    num_bytes: int


@dataclass(frozen=True)
class PackingLimits:
    """Numbers of symbols: a tensor up to ``small`` may share a blob with others; a blob up to
    ``sequential`` may use a coder that decodes one symbol after the other; a segment has up to
    ``segment``; zero runs of up to ``runs`` entries are chosen unasked, because the Huffman codes
    of more take stock ONNX Runtime long. ``lane_steps`` symbols of a wide segment are decoded one
    after the other, 0 for what suits a CPU: a GPU needs thousands of blocks of 32 lanes, so 512
    in large models, at the cost of two bytes and a little for each lane."""

    small: int = 4096
    sequential: int = 4096
    segment: int = 64 << 20
    runs: int = 1 << 19
    lane_steps: int = 0
