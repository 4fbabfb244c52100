# SPDX-License-Identifier: Apache-2.0
"""Trellis (dependent) quantisation beside uniform quantisation at equal squared error.

    python -m benchmarks.trellis [--repeat N] [--rounds N] [--rates 0.3,0.5]

Every tensor of MiniLM and CREPE is quantised uniformly, absmax, at 4 and 8 bits. Each other way
gets that tensor's squared error too, its step found by interpolation. "By rate" means that symbols
are chosen by squared error + weight * bits, the weight in squared steps of the uniform quantiser or
of the integers of the trellis, for each tensor that of the given ones with the fewest bytes. Sizes
count every byte of the blobs; speeds are of one core, in millions of symbols a second, the best of
N turns that all blobs take in one loop.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import click
import numpy as np
import numpy.typing as npt

from benchmarks.codec import CASES, best_seconds
from benchmarks.weight_symbols import quantise, real_weights, three_axes
from passes.schemes.trellis import row_view
from runtime.trellis import search_symbols, trellis_integers
from runtime.wide import WideReader, encode_wide

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int16]

_STEP_SHARE = 0.58  # of a trellis's step in the uniform one's at about equal error
_TRIES = 6
_CLOSE = 0.001  # of the squared error: no further tries
_CLOSE_ENOUGH = 0.01  # to be compared


@dataclass(frozen=True)
class Way:
    """One way to choose symbols."""

    name: str
    trellis: bool
    rate_weights: tuple[float, ...]


@dataclass(frozen=True)
class Chosen:
    """Symbols to be coded, the integers that they stand for, and the step of these."""

    symbols: Integers
    integers: Integers
    step: float


def squared_error(weight: Floats, integers: npt.NDArray[np.generic], step: float) -> float:
    """Sum over all elements, in double precision."""
    difference = integers.reshape(-1) * np.float64(step) - weight.reshape(-1)
    return float(np.dot(difference, difference))


@dataclass(frozen=True)
class Search:
    """How symbols are searched: arguments of `search_symbols`."""

    trellis: bool
    rate_weight: float
    rounds: int
    starts: int


def choose(rows: Floats, how: Search, step: float) -> Chosen:
    """The symbols of one tensor [A, B, C] under a step."""
    values = (rows / np.float32(step)).astype(np.float32)
    symbols, _ = search_symbols(values, **vars(how))
    return Chosen(symbols, trellis_integers(symbols) if how.trellis else symbols, step)


def at_equal_error(rows: Floats, how: Search, step: float, target: float) -> tuple[float, Chosen]:
    """Symbols whose squared error is the target's, and by how much its logarithm is off:
    interpolation of log error over log step."""
    log_step, slope = np.log(step), 2.0
    tried: list[tuple[float, float]] = []
    best: tuple[float, Chosen] | None = None
    for _ in range(_TRIES):
        chosen = choose(rows, how, float(np.exp(log_step)))
        off = np.log(max(squared_error(rows, chosen.integers, chosen.step), 1e-300) / target)
        if best is None or abs(off) < abs(best[0]):
            best = (off, chosen)
        if abs(off) < _CLOSE:
            break
        tried.append((log_step, off))
        if len(tried) > 1:
            (x0, y0), (x1, y1) = tried[-2:]
            slope = float(np.clip((y1 - y0) / (x1 - x0), 0.5, 3.0)) if x1 != x0 else slope
        log_step -= off / slope
    if best is None:
        raise ValueError("no step was tried")
    return best


def smallest_at_equal_error(
    rows: Floats, way: Way, step: float, target: float, rounds: int
) -> Chosen:
    """Of the way's weights that with the fewest bytes. Where the error of a search of two starts
    jumps over the target, as it passes from one start's end to the other's, one start has to do."""
    found: list[tuple[float, int, Chosen]] = []
    for weight in way.rate_weights:
        for starts in (2, 1) if weight else (1,):
            off, chosen = at_equal_error(
                rows, Search(way.trellis, weight, rounds, starts), step, target
            )
            found.append((abs(off), sum(b.nbytes for b in blobs_of([chosen], way)), chosen))
            if abs(off) < _CLOSE_ENOUGH:
                break
    close = [f for f in found if f[0] < _CLOSE_ENOUGH]
    return min(close, key=lambda f: f[1])[2] if close else min(found, key=lambda f: f[0])[2]


def blobs_of(chosen: list[Chosen], way: Way) -> list[npt.NDArray[np.uint16]]:
    """Blobs as files have them: one of tensors whose integers fit int8, one of the others."""
    blobs = []
    fits = [int(np.abs(c.integers).max()) <= 127 for c in chosen]
    for kind, wanted in ((np.int8, True), (np.int16, False)):
        part = [c for c, fit in zip(chosen, fits, strict=True) if fit == wanted]
        if not part:
            continue
        symbols = [c.symbols.astype(kind) for c in part]
        blobs.append(encode_wide(symbols, trellis=[way.trellis] * len(part)))
        reader = WideReader(blobs[-1])
        for index, c in enumerate(part):
            if not np.array_equal(reader.decode_tensor(index).reshape(-1), c.integers.reshape(-1)):
                raise SystemExit(f"{way.name}: tensor {index} does not decode to its integers")
    return blobs


def decode_all(readers: list[WideReader]) -> None:
    """Every symbol on one core."""
    for reader in readers:
        reader.decode_all(threads=1)


def measure(network: str, bits: int, ways: list[Way], rounds: int, repeat: int) -> None:
    """Prints one network at one number of bits."""
    weights = list(real_weights(network).values())
    uniform = [three_axes(quantise(w, bits)) for w in weights]
    steps = [float(np.abs(w).max()) / (2 ** (bits - 1) - 1) for w in weights]
    targets = [squared_error(w, u, s) for w, u, s in zip(weights, uniform, steps, strict=True)]
    count = sum(w.size for w in weights)
    plain = encode_wide(uniform)
    print(f"\n{network}, {bits} bits: {count / 1e6:.2f} M symbols", flush=True)
    sizes = {"uniform": plain.nbytes}
    readers = {"uniform": [WideReader(plain)]}
    errors = {"uniform": 1.0}
    for way in ways:
        chosen = []
        for weight, like, step, target in zip(weights, uniform, steps, targets, strict=True):
            rows = weight.reshape(row_view(weight.shape) if way.trellis else like.shape)
            first = step * (_STEP_SHARE if way.trellis else 1.0)
            chosen.append(smallest_at_equal_error(rows, way, first, target, rounds))
        blobs = blobs_of(chosen, way)
        sizes[way.name] = sum(blob.nbytes for blob in blobs)
        readers[way.name] = [WideReader(blob) for blob in blobs]
        found = sum(
            squared_error(w, c.integers, c.step) for w, c in zip(weights, chosen, strict=True)
        )
        errors[way.name] = found / sum(targets)
    turns: dict[str, Callable[[], object]] = {
        name: lambda own=own: decode_all(own) for name, own in readers.items()
    }
    seconds = best_seconds(turns, repeat)
    for name, size in sizes.items():
        print(
            f"  {name:28} {size * 8 / count:.4f} bit {100 * (size / plain.nbytes - 1):+6.2f} %"
            f"  error x {errors[name]:.4f}  {count / seconds[name] / 1e6:5.0f} M/s"
            f"  {seconds['uniform'] / seconds[name]:.2f} x uniform's speed",
            flush=True,
        )
    like_with_like(ways, sizes)


def like_with_like(ways: list[Way], sizes: dict[str, int]) -> None:
    """Prints trellis against uniform quantisation, both by least error, and both by rate."""
    for by_rate, text in ((False, "both by least error"), (True, "both by rate")):
        found: dict[bool, list[int]] = {False: [] if by_rate else [sizes["uniform"]], True: []}
        for way in ways:
            if any(way.rate_weights) == by_rate:
                found[way.trellis].append(sizes[way.name])
        if found[False] and found[True]:
            change = 100 * (min(found[True]) / min(found[False]) - 1)
            print(f"  trellis against uniform, {text}: {change:+.2f} %", flush=True)


@click.command()
@click.option("--repeat", default=9, show_default=True, help="Turns of each decoder.")
@click.option("--rounds", default=2, show_default=True, help="Rounds of the search.")
@click.option("--rates", default="0.3,0.5", show_default=True, help="Weights of a bit, trellis.")
@click.option("--uniform-rates", default="0.1,0.2", show_default=True, help="The same, uniform.")
@click.option("--case", "cases", multiple=True, help="For example minilm4; default: all.")
def main(repeat: int, rounds: int, rates: str, uniform_rates: str, cases: tuple[str, ...]) -> None:
    """Trellis quantisation beside uniform quantisation at equal squared error."""
    ways = [Way("trellis, least error", True, (0.0,))]
    for name, trellis, text in (("uniform", False, uniform_rates), ("trellis", True, rates)):
        weights = tuple(float(weight) for weight in text.split(",") if weight)
        if weights:
            ways.append(Way(f"{name} by rate", trellis, weights))
    for network, bits in CASES:
        if not cases or f"{network}{bits}" in cases:
            measure(network, bits, ways, rounds, repeat)


if __name__ == "__main__":
    main()
