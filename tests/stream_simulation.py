# SPDX-License-Identifier: Apache-2.0
"""CUDA streams and events as far as ordering goes, played in any order that they allow.

Work is put on streams in the order of the host and begins when all work before it on its stream
has ended. A decode writes a buffer and a use reads one from its beginning to its end.
"""

from __future__ import annotations

import dataclasses
import random
from collections import deque
from collections.abc import Mapping
from typing import Any, NamedTuple

RECORD, WAIT, DECODE, USE = range(4)
MAIN, SIDE = 0, 1
BEGIN = 4


class Step(NamedTuple):
    """As `tk_prefetch_step`, with the number of its use."""

    action: int
    stream: int
    index: int
    value: int
    use: int
    offset: int = 0


class HazardError(AssertionError):
    """Something was read or written that must not be."""


@dataclasses.dataclass
class Span:
    """Bytes of a buffer: where a weight lies, or is being written."""

    begin: int
    end: int
    place: int
    ready: bool = False
    readers: int = 0

    def meets(self, begin: int, end: int) -> bool:
        return self.begin < end and begin < self.end


class Buffer:
    """The weights in a buffer, and who is at them."""

    def __init__(self) -> None:
        self._spans: list[Span] = []

    def begin_write(self, begin: int, end: int, place: int) -> None:
        met = [span for span in self._spans if span.meets(begin, end)]
        if any(span.readers or not span.ready for span in met):
            raise HazardError(f"bytes {begin} to {end} are touched while they are used")
        self._spans = [span for span in self._spans if span not in met]
        self._spans.append(Span(begin, end, place))

    def begin_read(self, begin: int, end: int, place: int) -> None:
        for span in self._spans:
            if span.meets(begin, end):
                if (span.begin, span.end, span.place) != (begin, end, place):
                    raise HazardError(f"bytes {begin} to {end} hold {span.place}, not {place}")
                if not span.ready:
                    raise HazardError(f"{place} is used before it is decoded")
                span.readers += 1
                return
        raise HazardError(f"bytes {begin} to {end} hold nothing where {place} is used")

    def finish(self, begin: int, place: int, *, read: bool) -> None:
        span = next(span for span in self._spans if (span.begin, span.place) == (begin, place))
        if read:
            span.readers -= 1
        else:
            span.ready = True


class Lane:
    """A run's stream, the second stream beside it, and two buffers for weights of so many bytes."""

    def __init__(self, bytes_of: Mapping[int, int]) -> None:
        self._bytes = bytes_of
        self.queues: tuple[deque[tuple[Any, ...]], deque[tuple[Any, ...]]] = (deque(), deque())
        self._buffers = [Buffer(), Buffer()]
        self._recorded: dict[int, int] = {}
        self._done: set[int] = set()
        self._count = 0
        self._running: dict[int, tuple[Any, ...]] = {}

    def put(self, step: Step) -> None:
        """What the host does."""
        queue = self.queues[step.stream]
        if step.action == RECORD:
            self._count += 1
            self._recorded[step.index] = self._count
            queue.append((RECORD, self._count))
        elif step.action == WAIT:
            if step.index not in self._recorded:
                raise HazardError(f"event {step.index} was never recorded")
            queue.append((WAIT, self._recorded[step.index]))
        else:
            queue.append((step.action, step.index, step.value, step.offset))

    def ready(self) -> list[int]:
        """The streams that can go on: end what runs, or begin what is next."""
        return [
            stream
            for stream, queue in enumerate(self.queues)
            if stream in self._running
            or (queue and (queue[0][0] != WAIT or queue[0][1] in self._done))
        ]

    def go_on(self, stream: int) -> None:
        """End the work that runs on a stream, or begin the next."""
        if stream in self._running:
            self._end(*self._running.pop(stream))
            return
        work = self.queues[stream].popleft()
        if work[0] == RECORD:
            self._done.add(work[1])
        elif work[0] != WAIT:
            self._begin(*work)
            self._running[stream] = work

    def _begin(self, action: int, index: int, place: int, offset: int) -> None:
        begin = (
            self._buffers[index].begin_read if action == USE else self._buffers[index].begin_write
        )
        begin(offset, offset + self._bytes[place], place)

    def _end(self, action: int, index: int, place: int, offset: int) -> None:
        self._buffers[index].finish(offset, place, read=action == USE)


def play(steps: list[tuple[int, Step]], seed: int, bytes_of: Mapping[int, int]) -> None:
    """Play the steps of lanes in one of the orders that the streams allow.

    Args:
        steps: number of the lane, and the step, in the order of the host.
        seed: chooses the order; some run the side stream late, some early.
        bytes_of: of the weight of each place.

    Raises:
        HazardError: a buffer held the wrong weight, or was touched while it was used.
    """
    chance = random.Random(seed)
    lanes: dict[int, Lane] = {}
    eager = chance.choice([0.0, 0.2, 0.9])  # how far the device follows the host
    for number, step in steps:
        lane = lanes.setdefault(number, Lane(bytes_of))
        lane.put(step)
        while chance.random() < eager and (ready := lane.ready()):
            lane.go_on(chance.choice(ready))
    favoured = chance.choice([None, MAIN, SIDE])
    for lane in lanes.values():
        while ready := lane.ready():
            lane.go_on(favoured if favoured in ready else chance.choice(ready))
        assert not any(lane.queues), "a stream waits for ever"


def check_joined(steps: list[Step], bytes_of: Mapping[int, int]) -> None:
    """Check that the side stream of a whole run hangs between two points of the main stream, as a
    capture of the main stream needs it.

    Raises:
        HazardError: work on the side stream begins before the run, or does not end within it.
    """
    lane = Lane(bytes_of)
    first = next((step for step in steps if step.stream == SIDE), None)
    if first is not None and (first.action, first.index) != (WAIT, BEGIN):
        raise HazardError("the side stream does not begin with the run")
    for step in steps:
        lane.put(step)
    while ready := lane.ready():  # the side stream only where the main stream waits for it
        lane.go_on(MAIN if MAIN in ready else SIDE)
        if not lane.queues[MAIN] and MAIN not in lane.ready():
            break
    left = [work for work in lane.queues[SIDE] if work[0] != WAIT]
    if left or SIDE in lane.ready():
        raise HazardError(f"the run ends without {left} of the side stream")
