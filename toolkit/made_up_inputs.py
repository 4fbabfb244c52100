# SPDX-License-Identifier: Apache-2.0
"""Feeds made up from a model's signature: sizes are guessed from names and places of dimensions."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from toolkit.calibration import Feed
from toolkit.errors import InputError, one_line
from toolkit.example_values import example_array
from toolkit.signature import InputSpec

SEED = 20_240_229
MIN_FEEDS, MAX_FEEDS = 4, 16
MACS_OF_FEEDS = 15e9
"""Made-up feeds are as many as take so many multiply-accumulates together: a power of two within
those limits. No time is measured: the result of a run is the same on every machine."""

_BATCH_NAMES = ("batch", "bs", "n", "num_samples")
_LENGTH_NAMES = ("seq", "len", "time", "token", "step", "frame", "word", "samples", "position")


@dataclass(frozen=True)
class Sizes:
    """Sizes of dynamic dimensions, by what they look like. One attempt at running the model."""

    batch: int = 4
    length: int = 64
    image: int = 224
    channels: int = 3
    other: int = 16


ATTEMPTS: tuple[Sizes, ...] = (
    Sizes(),
    Sizes(batch=1),
    Sizes(batch=1, length=512, image=256),
    Sizes(batch=1, image=640),
    Sizes(batch=1, length=128, image=64, channels=1, other=1),
    Sizes(batch=1, length=16_000, image=32, channels=1, other=512),
    Sizes(batch=1, length=1, image=32, channels=1, other=1),
)


def made_up_feeds(
    signatures: Sequence[Sequence[InputSpec]],
    bounds: Mapping[str, int],
    attempt: Callable[[Feed], object],
    work: Callable[[Feed], int],
) -> tuple[list[Feed], str]:
    """Feeds on which the model runs, and what they are in words. `signatures` are of one model, the
    likeliest first; `bounds`, `attempt` and `work` as `toolkit.inputs.model_inputs` takes them.

    Raises `InputError` where no feed runs.
    """
    for spec in signatures[0]:
        if spec.dtype is None:
            raise InputError(
                f"input {spec.text}: cannot make values of this type, give them by --calibration"
            )
    failure: Exception | None = None
    tried: set[tuple[tuple[int, ...], ...]] = set()
    for specs, sizes in ((specs, sizes) for specs in signatures for sizes in ATTEMPTS):
        shapes = tuple(resolve_shapes(specs, sizes).values())
        if shapes in tried:
            continue
        tried.add(shapes)
        for cautious in (False, True):
            first = make_feed(specs, sizes, bounds, 0, cautious)
            try:
                attempt(first)
            except Exception as error:  # onnxruntime raises many kinds; the first is reported
                failure = failure or error
                continue
            count = _affordable(work(first))
            numbers = range(1, count if specs else 1)
            rest = [make_feed(specs, sizes, bounds, i, cautious) for i in numbers]
            if not cautious and _has_guessed_integers(specs, bounds):
                rest = list(_that_run(rest, specs, sizes, bounds, attempt))
            return [first, *rest], _describe(specs, first, 1 + len(rest))
    wanted = ", ".join(spec.text for spec in signatures[0]) or "none"
    raise InputError(
        f"cannot make inputs that the model runs on, give real ones by --calibration (inputs: "
        f"{wanted}; onnxruntime: {one_line(failure or ValueError('no attempt'))})"
    ) from failure


def _has_guessed_integers(specs: Sequence[InputSpec], bounds: Mapping[str, int]) -> bool:
    """Whether there are integers of which nobody knows how large they may be."""
    return any(
        spec.dtype is not None and spec.dtype.kind in "iu" and spec.name not in bounds
        for spec in specs
    )


def _that_run(
    feeds: Sequence[Feed],
    specs: Sequence[InputSpec],
    sizes: Sizes,
    bounds: Mapping[str, int],
    attempt: Callable[[Feed], object],
) -> Iterator[Feed]:
    """The feeds after the first, cautious ones instead of those on which the model does not run:
    lengths of sequences, say, that are within the sequence in one feed and beyond it in another."""
    for number, feed in enumerate(feeds, start=1):
        for candidate in (feed, make_feed(specs, sizes, bounds, number, cautious=True)):
            try:
                attempt(candidate)
            except Exception:  # onnxruntime raises many kinds
                continue
            yield candidate
            break


def _affordable(macs: int) -> int:
    """How many feeds to make where each takes so many multiply-accumulates."""
    count = MIN_FEEDS
    while count < MAX_FEEDS and 2 * count * macs <= MACS_OF_FEEDS:
        count *= 2
    return count


def _describe(specs: Sequence[InputSpec], feed: Feed, count: int) -> str:
    if not specs:
        return "the model takes no inputs: it was run once"
    shown = [f"{s.name} {s.element} {list(feed[s.name].shape)}" for s in specs]
    text = ", ".join(shown[:4]) + (f" and {len(shown) - 4} more" if len(shown) > 4 else "")
    return (
        f"no calibration data: measured on {count} made-up feeds of {text}; "
        "accuracy was not measured, real inputs (--calibration) make the figures trustworthy"
    )


def make_feed(
    specs: Sequence[InputSpec],
    sizes: Sizes,
    bounds: Mapping[str, int],
    index: int,
    cautious: bool = False,
) -> Feed:
    """Feed number `index`, the same for the same arguments. `cautious` keeps integers below 2."""
    shapes = resolve_shapes(specs, sizes)
    feed: Feed = {}
    for spec in specs:
        rng = np.random.default_rng([SEED, index, zlib.crc32(spec.name.encode())])
        bound = 2 if cautious else bounds.get(spec.name)
        feed[spec.name] = example_array(spec, shapes[spec.name], rng, bound)
    return feed


def resolve_shapes(specs: Sequence[InputSpec], sizes: Sizes) -> dict[str, tuple[int, ...]]:
    """A size for every dimension; a symbol has one size wherever it occurs."""
    symbols: dict[str, int] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    for spec in specs:
        shape = []
        for axis, dim in enumerate(spec.shape):
            if isinstance(dim, int):
                shape.append(dim)
            elif isinstance(dim, str):
                shape.append(symbols.setdefault(dim, _symbol_size(dim, axis, spec, sizes, symbols)))
            else:
                shape.append(_guess(axis, spec, sizes))
        shapes[spec.name] = tuple(shape)
    return shapes


def _symbol_size(
    symbol: str, axis: int, spec: InputSpec, sizes: Sizes, symbols: Mapping[str, int]
) -> int:
    if "+" in symbol:
        terms = [term.strip() for term in symbol.split("+")]
        return sum(
            int(term)
            if term.isdigit()
            else symbols.get(term, _symbol_size(term, axis, spec, sizes, symbols))
            for term in terms
        )
    low = symbol.lower()
    if "past" in low or "cache" in low:
        return 8
    if "total" in low:
        return 8 + sizes.length
    if low in _BATCH_NAMES or "batch" in low:
        return sizes.batch
    if any(part in low for part in _LENGTH_NAMES):
        return sizes.length
    if "channel" in low:
        return sizes.channels
    if "height" in low or "width" in low or low in ("h", "w"):
        return sizes.image
    return _guess(axis, spec, sizes)


def _guess(axis: int, spec: InputSpec, sizes: Sizes) -> int:
    """By position: the first axis is a batch; images are [N, C, H, W] or [N, H, W, C]."""
    rank = len(spec.shape)
    if axis == 0 and rank > 1:
        return sizes.batch
    if rank == 4:
        last = spec.shape[3]
        channels_last = isinstance(last, int) and last in (1, 3, 4)
        if not channels_last and axis == 1:
            return sizes.channels
        return sizes.image
    if rank in (2, 3) and axis == 1:
        floats = spec.element.startswith(("float", "double", "bfloat"))
        return sizes.length if rank == 3 or not floats else max(sizes.other, 512)
    if rank == 3:
        return sizes.batch if _is_state(spec.name) else sizes.other
    return sizes.batch if rank == 1 else sizes.other


def _is_state(name: str) -> bool:
    return name.lower() in ("h", "c", "h0", "c0", "hx", "cx", "state", "hidden")
