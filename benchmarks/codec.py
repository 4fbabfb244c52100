# SPDX-License-Identifier: Apache-2.0
"""Size and speed of the wide codec beside zstd and NNCodec, on the weights of real networks.

    python -m benchmarks.codec [--repeat N] [--nncodec]

Sizes count every byte of the blob. Speeds are of one core unless said, in megabytes of one-byte
symbols a second, the best of N turns; all coders take their turns in one loop, so their ratios
hold on a machine whose speed drifts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable, Mapping
from functools import partial
from typing import TypeVar

import click
import numpy as np

from benchmarks.weight_symbols import Symbols, entropy_bits, quantise, real_weights, three_axes
from runtime.wide import WideReader, encode_wide

K = TypeVar("K", bound=Hashable)

CASES = (("minilm", 4), ("minilm", 8), ("crepe", 4), ("crepe", 8))


def best_seconds(turns: Mapping[K, Callable[[], object]], repeat: int) -> dict[K, float]:
    """Shortest time of each, taking turns."""
    best = dict.fromkeys(turns, float("inf"))
    for _ in range(repeat):
        for name, turn in turns.items():
            start = time.perf_counter()
            turn()
            best[name] = min(best[name], time.perf_counter() - start)
    return best


def wide_blobs(tensors: list[Symbols]) -> dict[str, np.ndarray]:
    """Blobs of the three ways to choose tables."""
    return {
        "classes and contexts": encode_wide(tensors),
        "classes": encode_wide(tensors, contexts="off"),
        "one table per tensor": encode_wide(tensors, contexts="off", classes=False),
    }


def check_round_trip(tensors: list[Symbols], blob: np.ndarray) -> None:
    """Raises `SystemExit` where a decoded tensor differs."""
    reader = WideReader(blob)
    for index, (tensor, found) in enumerate(zip(tensors, reader.decode_tensors(), strict=True)):
        if not np.array_equal(found.reshape(-1), tensor.reshape(-1)):
            raise SystemExit(f"tensor {index} does not decode to its symbols")


def measure(network: str, bits: int, repeat: int, with_nncodec: bool) -> None:
    """Prints one network at one number of bits."""
    import zstandard

    tensors = [three_axes(quantise(w, bits)) for w in real_weights(network).values()]
    count = sum(t.size for t in tensors)
    flat = b"".join(t.tobytes() for t in tensors)
    entropy = sum(map(entropy_bits, tensors)) / count
    print(f"\n{network}, {bits} bits: {count / 1e6:.2f} M symbols, entropy {entropy:.4f} bit")

    blobs = wide_blobs(tensors)
    readers = {name: WideReader(blob) for name, blob in blobs.items()}
    for blob in blobs.values():
        check_round_trip(tensors, blob)
    packed = zstandard.ZstdCompressor(level=19).compress(flat)
    turns: dict[str, Callable[[], object]] = {
        "zstd -19": lambda: zstandard.ZstdDecompressor().decompress(packed)
    }
    for name, reader in readers.items():
        turns[name] = lambda reader=reader: reader.decode_tensors(threads=1)
    best = readers["classes and contexts"]
    seconds = best_seconds(turns, repeat)
    pair = best_seconds({n: partial(best.decode_tensors, threads=n) for n in (1, 2)}, 2 * repeat)
    seconds |= best_seconds(
        {
            "encode": lambda: encode_wide(tensors, threads=1),
            "encode, two threads": lambda: encode_wide(tensors, threads=2),
        },
        max(2, repeat // 3),
    )

    def speed(name: str) -> str:
        rate, ratio = count / seconds[name] / 1e6, seconds["zstd -19"] / seconds[name]
        return f"{rate:7.0f} MB/s  {ratio:5.2f} x zstd"

    sizes = {name: blob.nbytes * 8 / count for name, blob in blobs.items()}
    sizes["zstd -19"] = len(packed) * 8 / count
    for name, size in sizes.items():
        print(f"  {name:22} {size:.4f} bit {100 * (size / entropy - 1):+6.2f} %  {speed(name)}")
    print(f"  two threads: {pair[1] / pair[2]:.2f} x one")
    for name in ("encode", "encode, two threads"):
        print(f"  {name:22} {count / seconds[name] / 1e6:7.0f} MB/s")
    if with_nncodec:
        from benchmarks.nncodec_peer import measure_nncodec

        size, decode_seconds = measure_nncodec(tensors)
        ratio = decode_seconds / seconds["classes and contexts"]
        print(
            f"  NNCodec (DeepCABAC)    {size * 8 / count:.4f} bit; we decode {ratio:.0f} x as fast"
        )


@click.command()
@click.option("--repeat", default=9, show_default=True, help="Turns of each coder.")
@click.option("--nncodec", is_flag=True, help="Also run NNCodec, if it is installed (minutes).")
def main(repeat: int, nncodec: bool) -> None:
    """Size and speed of the wide codec beside zstd and NNCodec."""
    for network, bits in CASES:
        measure(network, bits, repeat, nncodec)


if __name__ == "__main__":
    main()
