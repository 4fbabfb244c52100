# SPDX-License-Identifier: Apache-2.0
"""FORMAT.md sections 2.1 to 2.3: geometry, fields and directories of a wide body."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from runtime.oracle.errors import require
from runtime.oracle.frame import WordCursor, Words

LANES_PER_BLOCK = 32
MAX_SYMBOLS = 2**31 - 1
FLAG_WIDE, FLAG_NESTED, FLAG_TRELLIS = 1, 2, 4
TRELLIS_SET = 0x80


@dataclass(frozen=True)
class WideTensor:
    """One row of the tensor directory (2.3). Counts are in symbols, rows, lanes."""

    a: int
    b: int
    c: int
    rows_per_lane: int
    table_set: int
    has_class: tuple[bool, bool, bool]
    low_bits: int
    class_base: int

    @property
    def num_rows(self) -> int:
        return self.a * self.b

    @property
    def num_lanes(self) -> int:
        return -(-self.num_rows // self.rows_per_lane)

    @property
    def num_blocks(self) -> int:
        return -(-self.num_lanes // LANES_PER_BLOCK)

    @property
    def num_steps(self) -> int:
        """Steps of the longest lane."""
        return self.rows_per_lane * self.c

    @property
    def class_bytes(self) -> int:
        return sum(
            n for n, has in zip((self.a, self.b, self.c), self.has_class, strict=True) if has
        )

    def lane_steps(self) -> npt.NDArray[np.int64]:
        """int64 [num_lanes]: steps of each lane."""
        first = np.arange(self.num_lanes, dtype=np.int64) * self.rows_per_lane
        return np.minimum(self.num_rows - first, self.rows_per_lane) * self.c


@dataclass
class WideBody:
    """A body as in 2.2 whose fields and directories are checked; its parts are not decoded yet."""

    wide: bool
    nested: bool
    num_tables: int
    num_lanes: int
    num_blocks: int
    num_steps: int
    num_code_words: int
    class_stream_bytes: int
    table_stream_bytes: int
    tensors: list[WideTensor] = field(default_factory=list)
    # contexts K, classes M, quantisers (2 in trellis sets)
    sets: list[tuple[int, int, int]] = field(default_factory=list)
    class_stream: npt.NDArray[np.uint8] | None = None  # where not nested
    table_stream: npt.NDArray[np.uint8] | None = None  # where not nested
    inner: WideBody | None = None  # where nested
    exceptions: npt.NDArray[np.uint16] = field(default_factory=lambda: np.empty((0, 4), np.uint16))
    block_words: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    states: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    code_words: Words = field(default_factory=lambda: np.empty(0, np.uint16))


def header(condition: bool, message: str) -> None:
    require(condition, "TK_ERR_HEADER", message)


def read_body(cursor: WordCursor, *, inside: bool = False) -> WideBody:
    """Read a wide body that must end where the cursor's words end.

    Args:
        cursor: stands at the body's first word.
        inside: the body holds the side information of another one (2.4).

    Raises:
        FormatError: TK_ERR_HEADER, TK_ERR_TRUNCATED, TK_ERR_STREAM.
    """
    num_tensors, num_sets = cursor.word("number of tensors"), cursor.word("number of sets")
    flags, num_tables = cursor.word("flags"), cursor.word("number of tables")
    header(num_tensors >= 1, "no tensors")
    header(1 <= num_sets <= 16, f"{num_sets} table sets, expected 1 to 16")
    header(flags <= 7, f"unknown flags {flags:#x}")
    header(1 <= num_tables <= 256, f"{num_tables} tables, expected 1 to 256")
    lanes, blocks, steps, code_words, exceptions, class_bytes, table_bytes = (
        cursor.u32(name) for name in ("L", "D", "T", "W", "X", "P", "U")
    )
    body = WideBody(
        wide=bool(flags & FLAG_WIDE),
        nested=bool(flags & FLAG_NESTED),
        num_tables=num_tables,
        num_lanes=lanes,
        num_blocks=blocks,
        num_steps=steps,
        num_code_words=code_words,
        class_stream_bytes=class_bytes,
        table_stream_bytes=table_bytes,
    )
    header(exceptions == 0 or body.wide, f"{exceptions} exceptions of 8-bit symbols")
    if inside:
        header(flags == 0 and num_tensors == 2, "side information: expected 2 tensors, no flags")
    entries = cursor.take(10 * num_tensors, "tensor directory").reshape(num_tensors, 10)
    body.tensors = [_read_tensor(entry, num_sets, body.wide) for entry in entries]
    _check_sums(body)
    for word in cursor.take(num_sets, "set directory"):
        contexts, classes = int(word) & 0xFF & ~TRELLIS_SET, int(word) >> 8
        header(contexts in (1, 5), f"{contexts} contexts, expected 1 or 5")
        header(1 <= classes <= 64, f"{classes} classes, expected 1 to 64")
        body.sets.append((contexts, classes, 2 if int(word) & TRELLIS_SET else 1))
    trellis = any(quantisers == 2 for *_, quantisers in body.sets)
    header(trellis == bool(flags & FLAG_TRELLIS), f"flags {flags:#x}, trellis sets: {trellis}")
    if body.nested:
        inner_words = cursor.u32("number of words of the side information")
        body.inner = read_body(
            WordCursor(cursor.take(inner_words, "side information")), inside=True
        )
    else:
        body.class_stream = cursor.byte_string(class_bytes, "class stream")
        body.table_stream = cursor.byte_string(table_bytes, "table stream")
    body.exceptions = cursor.take(4 * exceptions, "exceptions").reshape(exceptions, 4)
    body.block_words = cursor.u32_array(blocks, "block lengths")
    body.states = cursor.u32_array(lanes, "initial states")
    body.code_words = cursor.take(code_words, "code words")
    left = cursor.words.size - cursor.at
    require(left == 0, "TK_ERR_TRUNCATED", f"{left} words follow the last code word")
    total = int(body.block_words.sum())
    header(total == code_words, f"the blocks have {total} words, W is {code_words}")
    lowest = int(body.states.min())
    require(lowest >= 2**16, "TK_ERR_STREAM", f"initial state {lowest} is below 65536")
    return body


def _read_tensor(entry: Words, num_sets: int, wide: bool) -> WideTensor:
    """One row, uint16 [10], of the tensor directory."""
    a, b, c, k = (int(entry[i]) | int(entry[i + 1]) << 16 for i in (0, 2, 4, 6))
    flags = int(entry[8])
    header(min(a, b, c) >= 1, f"empty tensor {a} x {b} x {c}")
    header(a * b * c <= MAX_SYMBOLS, f"tensor {a} x {b} x {c} has more than 2^31 - 1 symbols")
    header(1 <= k <= a * b, f"{k} rows in a lane, expected 1 to {a * b}")
    header(flags & 0xFF < num_sets, f"table set {flags & 0xFF} of {num_sets}")
    header(not flags & 0x800, "bit 11 of a tensor's flags is set")
    low_bits = flags >> 12
    header(low_bits <= (8 if wide else 0), f"{low_bits} raw low bits")
    has_class = (bool(flags & 0x100), bool(flags & 0x200), bool(flags & 0x400))
    base = int(entry[9]) - (int(entry[9]) >> 15 << 16)
    return WideTensor(a, b, c, k, flags & 0xFF, has_class, low_bits, base)


def _check_sums(body: WideBody) -> None:
    """The fields that the tensor directory determines."""
    expected = {
        "lanes": (body.num_lanes, sum(t.num_lanes for t in body.tensors)),
        "blocks": (body.num_blocks, sum(t.num_blocks for t in body.tensors)),
        "steps": (body.num_steps, max(t.num_steps for t in body.tensors)),
        "class bytes": (body.class_stream_bytes, sum(t.class_bytes for t in body.tensors)),
    }
    for name, (found, directory) in expected.items():
        header(found == directory, f"{found} {name}, the tensor directory gives {directory}")
    header(
        body.num_lanes * body.num_steps <= MAX_SYMBOLS,
        f"{body.num_lanes} lanes of {body.num_steps} steps are more than 2^31 - 1 symbols",
    )
    most = 65536 * (body.num_lanes + body.num_code_words)
    header(
        body.num_lanes * body.num_steps <= most,
        f"{body.num_lanes} lanes of {body.num_steps} steps from {body.num_code_words} words",
    )
