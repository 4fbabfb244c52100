# SPDX-License-Identifier: Apache-2.0
"""Decoding weights ahead on a second stream: what is put on which stream, played on a simulation of
streams and events in many orders."""

from __future__ import annotations

import ctypes
import itertools
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime import library
from tests.stream_simulation import (
    BEGIN,
    DECODE,
    MAIN,
    RECORD,
    SIDE,
    USE,
    WAIT,
    HazardError,
    Step,
    check_joined,
    play,
)


class _Use(ctypes.Structure):
    _fields_ = [("place", ctypes.c_int64), ("lane", ctypes.c_int32), ("fails", ctypes.c_int32)]


class _Step(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int32) for name in ("action", "stream", "index", "reserved")),
        *((name, ctypes.c_int64) for name in ("value", "offset", "use")),
    ]


BYTES = 100  # of a weight where tests do not say: none shares a group with another


def trace(
    uses: Sequence[tuple[int, int, int]],
    num_places: int,
    ahead: Sequence[bool] | None = None,
    *,
    num_bytes: Sequence[int] | None = None,
    group_bytes: int = 0,
) -> list[Step]:
    """The steps for uses (place, lane, whether it fails)."""
    given_ahead = np.array([True] * num_places if ahead is None else ahead, np.uint8)
    sizes = np.array([BYTES] * num_places if num_bytes is None else num_bytes, np.int64)
    most = (8 + 2 * num_places) * (len(uses) + 1)
    steps, count = (_Step * most)(), ctypes.c_int64()
    held = (_Use * len(uses))(*uses)
    status = library.load().tk_prefetch_trace(
        given_ahead.ctypes.data, sizes.ctypes.data, num_places, group_bytes,
        ctypes.addressof(held), len(uses),
        ctypes.addressof(steps), len(steps), ctypes.byref(count),
    )  # fmt: skip
    library.check(status, "planning")
    made = steps[: count.value]
    return [Step(s.action, s.stream, s.index, s.value, s.use, s.offset) for s in made]


def run_of(places: Sequence[int], lane: int = 0) -> list[tuple[int, int, int]]:
    return [(place, lane, 0) for place in places]


def used_at(steps: list[Step]) -> dict[int, int]:
    """The place of each use that has the plan's buffer."""
    return {step.use: step.value for step in steps if step.action == USE}


def sizes_of(num_bytes: Sequence[int] | None = None) -> dict[int, int]:
    """Bytes by place."""
    return dict(enumerate([BYTES] * 64 if num_bytes is None else num_bytes))


def check(
    uses: list[tuple[int, int, int]], steps: list[Step], num_bytes: Sequence[int] | None = None
) -> None:
    """Play the steps; where a use has no buffer of the plan, its weight is decoded on the main
    stream into either buffer."""
    planned = used_at(steps)
    for number, place in planned.items():
        assert uses[number][0] == place
    whole = list(steps)
    for number, (place, _, _) in enumerate(uses):
        if number not in planned:
            whole += [Step(action, MAIN, number % 2, place, number) for action in (DECODE, USE)]
    whole.sort(key=lambda step: step.use)
    for seed in range(12):
        play([(uses[step.use][1], step) for step in whole], seed, sizes_of(num_bytes))


def test_each_weight_is_decoded_while_the_one_before_is_used() -> None:
    steps = trace(run_of(range(3)), 3)
    assert [step[:5] for step in steps] == [
        (RECORD, MAIN, 4, 0, 0),
        (WAIT, SIDE, 4, 0, 0),
        (DECODE, MAIN, 0, 0, 0),
        (DECODE, SIDE, 1, 1, 0),
        (RECORD, SIDE, 1, 0, 0),
        (USE, MAIN, 0, 0, 0),
        (RECORD, MAIN, 2, 0, 0),
        (WAIT, MAIN, 1, 0, 1),
        (WAIT, SIDE, 2, 0, 1),
        (DECODE, SIDE, 0, 2, 1),
        (RECORD, SIDE, 0, 0, 1),
        (USE, MAIN, 1, 1, 1),
        (WAIT, MAIN, 0, 0, 2),
        (USE, MAIN, 0, 2, 2),
    ]


@pytest.mark.parametrize("length", [2, 3, 4, 7, 20])
def test_runs_are_without_hazard_and_joined(length: int) -> None:
    uses = run_of([*range(length)] * 3)
    steps = trace(uses, length)
    assert len(used_at(steps)) == 3 * length
    check(uses, steps)
    for run in range(3):
        check_joined([step for step in steps if step.use // length == run], sizes_of())
    decoded = [step.value for step in steps if step.action == DECODE and step.stream == SIDE]
    assert decoded == [*range(1, length)] * 3


def test_neighbours_are_decoded_together() -> None:
    num_bytes = [1000, 300, 2000, 5000, 10, 10]
    uses = run_of([*range(6)] * 2)
    steps = trace(uses, 6, num_bytes=num_bytes, group_bytes=4096)
    first = [step for step in steps if step.use < 6]
    assert [(s.action, s.stream, s.index, s.value, s.offset) for s in first] == [
        (RECORD, MAIN, 4, 0, 0),
        (WAIT, SIDE, 4, 0, 0),
        *((DECODE, MAIN, 0, 0, 0), (DECODE, MAIN, 0, 1, 1024), (DECODE, MAIN, 0, 2, 1536)),
        (DECODE, SIDE, 1, 3, 0),  # larger than a group
        (RECORD, SIDE, 1, 0, 0),
        *((USE, MAIN, 0, 0, 0), (USE, MAIN, 0, 1, 1024), (USE, MAIN, 0, 2, 1536)),
        (RECORD, MAIN, 2, 0, 0),
        (WAIT, MAIN, 1, 0, 0),
        (WAIT, SIDE, 2, 0, 0),
        *((DECODE, SIDE, 0, 4, 0), (DECODE, SIDE, 0, 5, 256)),
        (RECORD, SIDE, 0, 0, 0),
        (USE, MAIN, 1, 3, 0),
        (WAIT, MAIN, 0, 0, 0),
        *((USE, MAIN, 0, 4, 0), (USE, MAIN, 0, 5, 256)),
    ]
    check(uses, steps, num_bytes)
    check_joined(first, sizes_of(num_bytes))


def test_groups_are_a_sixteenth_of_all_and_not_too_large() -> None:
    def groups(num_bytes: list[int]) -> list[int]:
        """How many weights each group has."""
        steps = trace(run_of(range(len(num_bytes))), len(num_bytes), num_bytes=num_bytes)
        begins = [s.value for s in steps if s.action == DECODE and s.offset == 0]
        return [b - a for a, b in itertools.pairwise([*begins, len(num_bytes)])]

    mib = 1 << 20
    assert groups([mib // 4] * 128) == [8] * 16
    assert groups([8 * mib] * 128) == [4] * 32  # 32 MiB
    assert groups([32 * mib] * 128) == [4] * 32  # a 32nd of 4 GiB
    assert groups([mib, 60 * mib, 59 * mib, mib]) == [1, 1, 2]


@pytest.mark.parametrize("group_bytes", [0, 700])
@pytest.mark.parametrize("kind", [WAIT, RECORD])
def test_the_simulation_sees_a_missing_event(kind: int, group_bytes: int) -> None:
    """Without any one of the waits, or with a record too early, some order has a hazard."""
    num_bytes, num_places = [BYTES] * 12, 12 if group_bytes else 6
    uses = run_of([*range(num_places)] * 2)
    steps = trace(uses, num_places, group_bytes=group_bytes)
    assert len([s for s in steps if s.action == RECORD and s.index == BEGIN]) == 2
    for number, step in enumerate(steps):
        if step.action != kind or (step.index, step.use) == (BEGIN, 0):
            continue  # nothing comes before the first run; only a capture needs it
        if kind == WAIT:
            changed = steps[:number] + steps[number + 1 :]
        else:  # before the work that it is to follow
            before = number - 1
            while steps[before].stream != step.stream:
                before -= 1
            if steps[before].action not in (DECODE, USE):
                continue
            changed = [*steps[:before], step, *steps[before:number], *steps[number + 1 :]]
        with pytest.raises((HazardError, AssertionError)):
            for seed in range(400):
                play([(0, each) for each in changed], seed, sizes_of(num_bytes))


def test_weights_that_cannot_be_decoded_ahead_have_their_turn() -> None:
    uses = run_of([0, 1, 2, 3, 4] * 2)
    steps = trace(uses, 5, ahead=[True, False, True, False, False])
    check(uses, steps)
    assert [s.value for s in steps if s.action == DECODE and s.stream == SIDE] == [2, 2]
    for run in range(2):
        check_joined([step for step in steps if step.use // 5 == run], sizes_of())


def test_an_order_of_its_own_is_learnt_from_one_whole_run() -> None:
    order = [0, 3, 1, 2]
    uses = run_of(order * 4)
    steps = trace(uses, 4)
    check(uses, steps)
    assert {step.use for step in steps if step.use < 4} == {0, 1}  # the first run is given up
    assert used_at(steps)[0] == 0
    learnt = [s.value for s in steps if s.use >= 4 and s.action == DECODE and s.stream == SIDE]
    assert learnt == [3, 1, 2] * 3


def test_a_run_that_begins_elsewhere_is_learnt_as_it_is() -> None:
    uses = run_of([2, 0, 1] * 4)
    steps = trace(uses, 3)
    check(uses, steps)
    learnt = [s.value for s in steps if s.action == DECODE and s.stream == SIDE]
    assert learnt == [0, 1] * 3
    for run in range(1, 4):
        check_joined([step for step in steps if step.use // 3 == run], sizes_of())


def test_orders_that_change_are_given_up() -> None:
    uses = run_of([0, 1, 2, 3, 0, 2, 1, 3] * 4)
    steps = trace(uses, 4)
    check(uses, steps)
    assert max(step.use for step in steps) < 20


def test_one_place_is_decoded_when_it_is_used() -> None:
    assert trace(run_of([0, 0, 0]), 1) == []


@pytest.mark.parametrize("fails_at", range(5))
@pytest.mark.parametrize("silent", [False, True])
def test_a_run_that_fails_leaves_nothing_behind(fails_at: int, silent: bool) -> None:
    """In the op itself, or silent: in another node, of which nobody tells."""
    failed = run_of(range(fails_at + 1))
    if not silent:
        failed[-1] = (fails_at, 0, 1)
    uses = [*run_of(range(5)), *failed, *run_of([*range(5)] * 2)]
    steps = trace(uses, 5)
    check(uses, steps)
    last = len(uses) - 5
    check_joined([step for step in steps if step.use >= last], sizes_of())


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_runs_on_any_streams_are_without_hazard(data: Any) -> None:
    num_places = data.draw(st.integers(2, 6))
    lanes = data.draw(st.integers(1, 3))
    orders = st.one_of(st.just(list(range(num_places))), st.permutations(range(num_places)))
    runs = [
        (data.draw(orders), data.draw(st.integers(0, lanes - 1)), data.draw(st.integers(0, 20)))
        for _ in range(data.draw(st.integers(1, 8)))
    ]
    waiting = [
        [(place, lane, int(n == fails)) for n, place in enumerate(order) if n <= max(fails, 2)]
        for order, lane, fails in runs
    ]
    uses: list[tuple[int, int, int]] = []
    random = data.draw(st.randoms(use_true_random=False))
    while any(waiting):  # of each stream one run at a time
        first = {run[0][1]: run for run in reversed([run for run in waiting if run])}
        uses.append(first[random.choice(sorted(first))].pop(0))
    ahead = [data.draw(st.booleans()) for _ in range(num_places)]
    num_bytes = data.draw(st.lists(st.integers(1, 3000), min_size=num_places, max_size=num_places))
    group_bytes = data.draw(st.sampled_from([0, 1, 1500, 6000]))
    steps = trace(uses, num_places, ahead, num_bytes=num_bytes, group_bytes=group_bytes)
    check(uses, steps, num_bytes)


ROOT = Path(__file__).resolve().parent.parent
NVCC = shutil.which("nvcc")
needs_nvcc = pytest.mark.skipif(NVCC is None, reason="there is no nvcc, which has CUDA's headers")


def build_driver(folder: Path, *flags: str) -> Path:
    """`runtime/csrc/cuda/prefetch.cu` with a CUDA runtime that writes down its calls."""
    cuda, driver = ROOT / "runtime" / "csrc" / "cuda", folder / "driver"
    command = [
        *(str(NVCC), "-std=c++17", "-O1", "-x", "c++", "-cudart", "none", "-Xcompiler"),
        ",".join(["-Wall,-Wextra,-Werror", *flags]),
        *("-I", str(cuda.parent), "-I", str(cuda), str(cuda / "prefetch.cu")),
        *(str(cuda / "prefetch_plan.cpp"), str(ROOT / "tests/sanitize/prefetch_driver.cpp")),
        *("-o", str(driver), "-lpthread"),
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    if flags and result.returncode and "tsan" in result.stderr:
        pytest.skip("there is no thread sanitizer")
    assert result.returncode == 0, result.stderr[-2000:]
    return driver


def calls_of(text: str, uses: Sequence[tuple[int, int, int]]) -> tuple[list[Step], list[int]]:
    """What the driver wrote, as steps, events by the order in which a lane first names them; and
    how many weights were decoded at once."""
    kinds = {"record": RECORD, "wait": WAIT, "decode": DECODE, "use": USE}
    steps, at_once, number = [], [], -1
    buffers: dict[tuple[int, int], int] = {}
    events: dict[tuple[int, int], int] = {}
    for line in text.splitlines():
        word, *rest = line.split()
        stream, index, value = map(int, rest)
        if word == "turn":
            number = stream
            continue
        if word == "start":
            at_once.append(value)
            continue
        lane, offset = uses[number][1], 0
        if word == "take":  # a lane takes the buffer of its first place, then the other
            buffers[lane, index] = len([buffer for buffer in buffers if buffer[0] == lane])
            continue
        if word in ("record", "wait"):
            index = events.setdefault((lane, index), len([e for e in events if e[0] == lane]))
        else:
            offset = index % (1 << 30)  # buffers begin at multiples
            index = buffers[lane, index - offset]
        main = stream == lane + 1
        steps.append(Step(kinds[word], MAIN if main else SIDE, index, value, number, offset))
    return steps, at_once


def in_order_of_events(steps: Sequence[Step], uses: Sequence[tuple[int, int, int]]) -> list[Step]:
    """Steps with their events numbered as `calls_of` does."""
    events: dict[tuple[int, int], int] = {}
    numbered = []
    for step in steps:
        lane = uses[step.use][1]
        if step.action in (RECORD, WAIT):
            count = len([event for event in events if event[0] == lane])
            step = step._replace(index=events.setdefault((lane, step.index), count))
        numbered.append(step)
    return numbered


@needs_nvcc
@pytest.mark.parametrize("group_bytes", [0, 700])
def test_the_device_is_told_what_is_planned(tmp_path: Path, group_bytes: int) -> None:
    driver = build_driver(tmp_path)
    other = run_of([3, 0, 1, 2, 4, 5], lane=1)
    whole = [*range(6)]
    uses = [*run_of(whole), *run_of(whole, lane=1), (0, 0, 0), (1, 0, 1), *run_of(whole),
            *other, *run_of(whole), *other, *other, *run_of([1, 3])]  # fmt: skip
    text = "\n".join(f"{place} {lane + 1} {fails}" for place, lane, fails in uses)
    result = subprocess.run(
        [str(driver), "6", "0", str(group_bytes)],
        input=text, capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    found, at_once = calls_of(result.stdout, uses)
    wanted = in_order_of_events(trace(uses, 6, group_bytes=group_bytes), uses)
    planned = used_at(wanted)
    assert [s for s in found if s.use in planned or s.action in (RECORD, WAIT)] == wanted
    assert max(at_once) == (3 if group_bytes else 1)
    assert sum(at_once) == len([step for step in found if step.action == DECODE])
    used = [(step.use, step.value) for step in found if step.action == USE]
    assert used == [(number, place) for number, (place, _, _) in enumerate(uses)]
    for seed in range(40):
        play([(uses[step.use][1], step) for step in found], seed, sizes_of())


@needs_nvcc
def test_threads_do_not_race(tmp_path: Path) -> None:
    driver = build_driver(tmp_path, "-fsanitize=thread")
    result = subprocess.run(
        [str(driver), "5", "3"], capture_output=True, text=True, check=False, timeout=120
    )
    assert result.returncode == 0, result.stderr[-2000:]
