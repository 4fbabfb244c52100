# SPDX-License-Identifier: Apache-2.0
"""The codec's own model as a differentiable rate."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from passes.symbol_packing import padded
from runtime.rounding import SymbolRates
from toolkit.nn.sloped import sloped
from toolkit.nn.stored_size import smallest_integers, symbol_bits, view_of

_MOST = 2**15 - 1


class CodecRate(nn.Module):
    """Bits of the symbols nearest to real positions, as the codec writes them.

    The wide codec codes a symbol by a static table that the scale of its row and of its column and
    the magnitude of the symbol before choose (FORMAT.md 2.6). Every ``interval`` calls in training
    mode the tensor's symbols are given to the codec, which makes its classes and tables for them
    and writes them with whichever of its coders is smallest; between, the value is what was written
    plus what the code lengths of the tables say has changed since. In evaluation mode the symbols
    are written at every call, which training does not notice. So the estimate is in bits, not in
    nats per weight, holds at 0.1 bits per weight as at 10, and knows headers and tables.

    The gradient is the slope of the code lengths between the two integers around a position: that
    of the expected rate under rounding up or down at random without bias, which is the mean over
    uniform noise of the rate of the rounded sum. The value has no noise. What a symbol changes in
    the context of the next one has no gradient.

    Args:
        shape: Of the tensor, in torch's layout; it decides what are rows and columns.
        interval: Calls in training mode from one fit of the tables to the next.
    """

    learnt_from: Tensor

    def __init__(self, shape: tuple[int, ...], *, interval: int = 50) -> None:
        super().__init__()
        self.shape, self.view, self.interval = tuple(shape), view_of(tuple(shape)), interval
        self.register_buffer("learnt_from", torch.zeros(shape, dtype=torch.int16))
        self._age = -1
        self._tables: _Tables | None = None

    @torch.compiler.disable
    def forward(self, positions: Tensor) -> Tensor:
        """Bits, float32 []; ``positions`` are real numbers in units of symbols, of the tensor's
        shape."""
        if self.training:
            if self._age < 0 or self._age >= self.interval:
                self.learn(positions)
            self._age += 1
        tables = self._tables_for(positions)
        rows = self._rows(positions.detach().float())
        total, slopes = tables.bits(rows)
        flat = slopes.reshape(-1)[: positions.numel()].reshape(positions.shape)
        return sloped(positions, total + tables.side_bits, flat)

    def learn(self, positions: Tensor) -> None:
        """Fits the tables to the symbols nearest to ``positions``."""
        self.learnt_from.copy_(_nearest(positions))
        self._tables, self._age = None, 0

    def _tables_for(self, positions: Tensor) -> _Tables:
        """Those of training, or of these very positions where nothing is trained."""
        tables = self._tables
        if not self.training and not torch.equal(_nearest(positions), self.learnt_from):
            tables = _Tables(_nearest(positions).cpu().numpy(), self.view)
        elif tables is None:
            tables = self._tables = _Tables(self.learnt_from.cpu().numpy(), self.view)
        tables.to(positions.device)
        return tables

    def _rows(self, positions: Tensor) -> Tensor:
        """[A * B, C], zeros behind the last position."""
        a, b, c = self.view
        flat = positions.reshape(-1)
        missing = a * b * c - flat.numel()
        return nn.functional.pad(flat, (0, missing)).reshape(a * b, c)

    def resized(self, shape: tuple[int, ...]) -> CodecRate:
        """The same rate of a tensor of another shape."""
        return CodecRate(shape, interval=self.interval)

    def get_extra_state(self) -> Tensor:
        """Calls since the last fit, int64 []."""
        return torch.tensor(self._age)

    def set_extra_state(self, state: Any) -> None:
        """Goes on from a state dict: the tables are made again from the symbols stored there."""
        self._age, self._tables = int(state), None


def _nearest(positions: Tensor) -> Tensor:
    """int16."""
    return positions.detach().round().clamp(-_MOST - 1, _MOST).to(torch.int16)


class _Tables:
    """Code lengths where the positions are, and the bits beside them: headers, tables, classes."""

    def __init__(self, symbols: np.ndarray, view: tuple[int, int, int]) -> None:
        rows = padded(symbols, view)
        found = SymbolRates(rows)
        self.side_bits = symbol_bits(smallest_integers(symbols), view) - found.total(rows)
        tables = found.tables()
        classes = tables.row_classes.astype(np.int32)[:, None] + tables.column_classes[None, :]
        kinds = np.clip(classes, 0, tables.map.shape[0] - 1)
        self.low_bits, self.contexts = tables.low_bits, tables.map.shape[1]
        places = tables.map.astype(np.int32) * 256 + 128
        self.device = torch.device("cpu")
        self._bits = torch.from_numpy(tables.bits.reshape(-1))
        if self.contexts == 1:
            self._places = torch.from_numpy(places[:, 0][kinds])
            self._kinds = self._t1 = self._t2 = torch.zeros(0)
        else:
            self._places = torch.from_numpy(places.reshape(-1))
            self._kinds = torch.from_numpy(kinds * 5)
            self._t1, self._t2 = (
                torch.from_numpy(t[kinds].astype(np.float32)) for t in (tables.t1, tables.t2)
            )

    def to(self, device: torch.device) -> None:
        if device == self.device:
            return
        for name in ("_bits", "_places", "_kinds", "_t1", "_t2"):
            setattr(self, name, getattr(self, name).to(device))
        self.device = device

    @torch.no_grad()
    def bits(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Code length of the nearest symbols together, and the slope at each position [R, C]."""
        symbols = rows.round()
        scale = float(1 << self.low_bits)
        coded = (symbols / scale).floor() if self.low_bits else symbols
        starts = self._starts(coded)
        if self.low_bits:
            lengths = self._lengths(starts, coded)
            slopes = self._lengths(starts, coded + 1) - self._lengths(starts, coded - 1)
            total = lengths.sum() + float(self.low_bits * rows.numel())
            return total, slopes / (2 * scale)
        lower = rows.floor()
        below, above = self._lengths(starts, lower), self._lengths(starts, lower + 1)
        return torch.where(symbols == lower, below, above).sum(), above - below

    def _starts(self, coded: Tensor) -> Tensor:
        """Where the table of each position stands: the index of its symbol 0."""
        if self.contexts == 1:
            return self._places
        before = nn.functional.pad(coded[:, :-1], (1, 0))
        size = before.abs()
        bins = (size >= self._t1).int() + (size >= self._t2).int()
        context = 2 + torch.where(before < 0, -bins, bins)
        return self._places[(self._kinds + context).long()]

    def _lengths(self, starts: Tensor, coded: Tensor) -> Tensor:
        return self._bits[(starts + coded.clamp(-128, 127).int()).long()]
