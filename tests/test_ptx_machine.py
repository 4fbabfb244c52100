# SPDX-License-Identifier: Apache-2.0
"""The PTX machine itself, on kernels written by hand: what it computes, and what it refuses."""

from __future__ import annotations

import math
import struct
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from tests.ptx.counters import Accesses, Counters, total
from tests.ptx.errors import PtxError
from tests.ptx.float_operations import bfloat16_of_float, fma
from tests.ptx.loaded_module import LoadedModule
from tests.ptx.machine import Launch
from tests.ptx.memory import DeviceMemory
from tests.ptx.parser import parse
from tests.ptx.warp_instructions import multiply as multiply_fragments

HEAD = ".version 8.0\n.target sm_80\n.address_size 64\n"
REGISTERS = """
    .reg .pred %p<9>; .reg .b16 %h<9>; .reg .b32 %r<30>; .reg .b32 %f<9>; .reg .b64 %d<30>;
    ld.param.u64 %d0, [out]; cvta.to.global.u64 %d0, %d0; ld.param.u64 %d9, [in];
    mov.u32 %r0, %tid.x; mul.wide.u32 %d1, %r0, 4; add.s64 %d1, %d1, %d0; add.s64 %d9, %d9, %d1;
    sub.s64 %d9, %d9, %d0; ld.global.u32 %r9, [%d9];
"""


class Bench:
    """Runs the body of a kernel of threads that have a word each: `%r9` is read, `[%d1]` written;
    `%r0` is the number of the thread."""

    def __init__(self, body: str, declared: str = "", functions: str = "") -> None:
        self.memory = DeviceMemory(1 << 20)
        text = f"{HEAD}{declared}\n{functions}\n.visible .entry k(.param .u64 out, .param .u64 in)"
        self.module = LoadedModule(parse(f"{text}\n{{{REGISTERS}{body}\nret;\n}}"), self.memory)

    def run(self, words: Any, threads: int = 32, *, shared: int = 0, count: bool = False,
            races: bool = False, blocks: int = 1, order: int | None = None) -> Any:  # fmt: skip
        held = np.resize(np.asarray(words, np.uint32), threads * blocks)
        out = self.memory.allocate(held.nbytes)
        source = self.memory.allocate(held.nbytes)
        self.memory.put(source, held)
        kernel = self.module.kernel("k")
        self.counters = Counters(kernel.translation.program) if count else None
        params = struct.pack("<QQ", out, source)
        Launch(kernel, self.memory, (blocks, 1, 1), (threads, 1, 1), shared, params,
               self.counters, races, order).run()  # fmt: skip
        return self.memory.get(out, held.nbytes).view(np.uint32)


RANDOM = np.random.default_rng(0).integers(0, 1 << 32, 32, dtype=np.uint64).astype(np.uint32)
MASK = 0xFFFFFFFF


def signed(value: int) -> int:
    return value - (1 << 32) if value >> 31 else value


@pytest.mark.parametrize(
    ("code", "function"),
    [
        ("add.s32 %r1, %r9, -3;", lambda x, t: x - 3),
        ("mul.lo.s32 %r1, %r9, %r9;", lambda x, t: x * x),
        ("mul.hi.u32 %r1, %r9, %r9;", lambda x, t: x * x >> 32),
        ("mul.hi.s32 %r1, %r9, 77777;", lambda x, t: signed(x) * 77777 >> 32),
        ("mul.wide.s32 %d2, %r9, -5; cvt.u32.u64 %r1, %d2;", lambda x, t: signed(x) * -5),
        ("mad.lo.s32 %r1, %r9, 3, %r0;", lambda x, t: x * 3 + t),
        ("shr.s32 %r1, %r9, 5;", lambda x, t: signed(x) >> 5),
        ("shl.b32 %r2, %r0, 1; shl.b32 %r1, %r9, %r2;", lambda x, t: x << 2 * t),
        ("shl.b32 %r2, %r0, 1; shr.u32 %r1, %r9, %r2;", lambda x, t: x >> 2 * t),
        ("shl.b32 %r2, %r0, 1; shr.s32 %r1, %r9, %r2;", lambda x, t: signed(x) >> min(2 * t, 31)),
        ("popc.b32 %r1, %r9;", lambda x, t: x.bit_count()),
        ("shr.u32 %r2, %r9, %r0; clz.b32 %r1, %r2;", lambda x, t: 32 - (x >> t).bit_length()),
        ("brev.b32 %r1, %r9;", lambda x, t: int(f"{x:032b}"[::-1], 2)),
        ("bfe.u32 %r1, %r9, %r0, 7;", lambda x, t: x >> t & 127),
        ("bfe.s32 %r1, %r9, 9, 7;", lambda x, t: (x >> 9 & 127) - (x >> 15 & 1) * 128),
        ("bfi.b32 %r1, %r0, %r9, 8, 4;", lambda x, t: x & ~0xF00 | (t & 15) << 8),
        ("prmt.b32 %r1, %r9, %r0, 0x4321;", lambda x, t: x >> 8 | (t & 255) << 24),
        ("and.b32 %r2, %r0, 7; or.b32 %r2, %r2, 30576; prmt.b32 %r1, %r9, 0, %r2;",
         lambda x, t: x.to_bytes(8, "little")[t & 7]),
        ("prmt.b32 %r1, %r9, 0, 0xBA98;",
         lambda x, t: sum(0xFF << 8 * n for n in range(4) if x >> 8 * n + 7 & 1)),
        ("shf.l.wrap.b32 %r1, %r9, %r9, %r0;", lambda x, t: (x << t | x >> (32 - t)) & MASK),
        ("shf.r.wrap.b32 %r1, %r9, %r0, 9;", lambda x, t: x >> 9 | t << 23),
        ("or.b32 %r2, %r0, 1; div.u32 %r1, %r9, %r2;", lambda x, t: x // (t | 1)),
        ("div.s32 %r1, %r9, 7;", lambda x, t: math.trunc(Fraction(signed(x), 7))),
        ("rem.s32 %r1, %r9, 7;", lambda x, t: signed(x) - 7 * math.trunc(Fraction(signed(x), 7))),
        ("sub.s32 %r2, %r9, %r9; div.u32 %r1, %r0, %r2;", lambda x, t: MASK),
        ("min.s32 %r1, %r9, %r0;", lambda x, t: min(signed(x), t)),
        ("max.u32 %r1, %r9, 1000000000;", lambda x, t: max(x, 1000000000)),
        ("setp.lt.s32 %p1, %r9, 0; selp.b32 %r1, 5, %r0, %p1;",
         lambda x, t: 5 if signed(x) < 0 else t),
        ("setp.gt.u32 %p1, %r0, 4; setp.eq.and.s32 %p2, %r0, 9, %p1; selp.u32 %r1, 1, 0, %p2;",
         lambda x, t: int(t == 9)),
        ("cvt.u16.u32 %h1, %r9; cvt.s32.s8 %r1, %h1;",
         lambda x, t: (x & 255) - 256 * (x >> 7 & 1)),
        ("mov.b32 {%h1, %h2}, %r9; mov.b32 %r1, {%h2, %h1};",
         lambda x, t: (x << 16 | x >> 16) & MASK),
        ("mov.u32 %r1, 7; setp.lt.u32 %p1, %r0, 8; @!%p1 mov.u32 %r1, %r9;",
         lambda x, t: 7 if t < 8 else x),
    ],
)  # fmt: skip
def test_integers(code: str, function: Any) -> None:
    found = Bench(code + " st.global.u32 [%d1], %r1;").run(RANDOM)
    for thread, (x, result) in enumerate(zip(RANDOM.tolist(), found.tolist(), strict=True)):
        assert result == function(x, thread) & MASK, thread


def test_lop3_is_a_table_of_three_inputs() -> None:
    for table in (0xD8, 0xE4, 0x96, 0x01, 0xFE):
        code = f"not.b32 %r2, %r0; lop3.b32 %r1, %r9, %r0, 1234567, {table};"
        found = Bench(code + " st.global.u32 [%d1], %r1;").run(RANDOM)
        for thread, (x, result) in enumerate(zip(RANDOM.tolist(), found.tolist(), strict=True)):
            bits = [
                table >> ((x >> n & 1) * 4 + (thread >> n & 1) * 2 + (1234567 >> n & 1)) & 1
                for n in range(32)
            ]
            assert result == sum(bit << n for n, bit in enumerate(bits))


def rounded(value: Fraction) -> float:
    """To float32, ties to even."""
    if value == 0:
        return 0.0
    exponent = max(math.floor(math.log2(abs(value))) - 23, -149)
    return float(round(value / Fraction(2) ** exponent) * Fraction(2) ** exponent)


def test_fma_is_rounded_once() -> None:
    random = np.random.default_rng(0)
    a, b = (random.normal(size=1000).astype(np.float32) for _ in range(2))
    # Sums that lie near the middle between two numbers.
    c = np.ldexp(-(a.astype(np.float64) * b), random.integers(-60, 60, 1000)).astype(np.float32)
    found = fma(a, b, c)
    for x, y, z, result in zip(a, b, c, found, strict=True):
        exact = Fraction(float(x)) * Fraction(float(y)) + Fraction(float(z))
        assert float(result) == rounded(exact)


def test_bfloat16_is_rounded_to_even() -> None:
    for bits, expected in ((0x3F808000, 0x3F80), (0x3F818000, 0x3F82), (0x3F808001, 0x3F81),
                           (0x7F7FFFFF, 0x7F80), (0x7FC00001, 0x7FFF)):  # fmt: skip
        value = np.array([bits], np.uint32).view(np.float32)
        assert bfloat16_of_float(value)[0] == expected


def test_float_conversions() -> None:
    code = """cvt.rn.f32.s32 %f1, %r9; mul.rn.f32 %f1, %f1, 0f3A83126F; cvt.rn.f16.f32 %h1, %f1;
        cvt.f32.f16 %f2, %h1; cvt.rzi.s32.f32 %r1, %f2; st.global.u32 [%d1], %r1;"""
    words = np.arange(-1600, 1600, 100, dtype=np.int32)
    value = (words.astype(np.float32) * np.float32(0.001)).astype(np.float16)
    found = Bench(code).run(words.view(np.uint32)).view(np.int32)
    np.testing.assert_array_equal(found, np.trunc(value).astype(np.int32))


def test_threads_that_part_meet_again() -> None:
    """And a vote behind the branch has them all."""
    code = """and.b32 %r1, %r0, 3; mov.u32 %r2, 0;
        loop: setp.eq.u32 %p1, %r1, 0; @%p1 bra done; add.s32 %r2, %r2, %r9;
        sub.s32 %r1, %r1, 1; bra.uni loop;
        done: setp.gt.u32 %p2, %r2, 20; vote.sync.ballot.b32 %r3, %p2, -1;
        st.global.u32 [%d1], %r3;"""
    expected = sum(1 << n for n in range(32) if (n & 3) * 10 > 20)
    for order in (None, 1, 2, 3):
        assert (Bench(code).run([10], 96, order=order) == expected).all()


def test_shuffles_and_reductions() -> None:
    code = "shfl.sync.{}.b32 %r1|%p1, %r9, {}, 31, -1; st.global.u32 [%d1], %r1;"
    words = np.arange(32) * 5
    for kind, amount, expected in (
        ("bfly", 3, words[np.arange(32) ^ 3]),
        ("idx", 7, np.full(32, 35)),
        ("down", 4, np.r_[words[4:], words[28:]]),
    ):
        np.testing.assert_array_equal(Bench(code.format(kind, amount)).run(words), expected)
    up = "shfl.sync.up.b32 %r1, %r9, 1, 0, -1; st.global.u32 [%d1], %r1;"
    np.testing.assert_array_equal(Bench(up).run(words), np.r_[0, words[:-1]])
    redux = "redux.sync.max.s32 %r1, %r9, -1; st.global.u32 [%d1], %r1;"
    assert (Bench(redux).run(words) == 155).all()


@pytest.mark.parametrize("inner", [8, 16])
def test_fragments_of_products(inner: int) -> None:
    """Where the elements of the matrices lie in the lanes' registers (PTX ISA, mma.m16n8k16)."""
    random = np.random.default_rng(1)
    a = random.integers(-8, 8, (16, inner)).astype(np.float16)
    b = random.integers(-8, 8, (inner, 8)).astype(np.float16)
    c = random.integers(-8, 8, (16, 8)).astype(np.float32)

    def pair(first: Any, second: Any) -> int:
        return int(np.array([first, second], np.float16).view(np.uint32)[0])

    registers: list[list[Any]] = [[] for _ in range(inner // 4 + inner // 8 + 4)]
    for lane in range(32):
        g, t = divmod(lane, 4)
        values: list[Any] = []
        for k in range(0, inner, 8):
            values += [pair(*a[g + h, k + 2 * t : k + 2 * t + 2]) for h in (0, 8)]
        values += [pair(b[k + 2 * t, g], b[k + 2 * t + 1, g]) for k in range(0, inner, 8)]
        values += [c[g, 2 * t], c[g, 2 * t + 1], c[g + 8, 2 * t], c[g + 8, 2 * t + 1]]
        for register, value in zip(registers, values, strict=True):
            register.append(value)
    words = [np.array(r, np.uint32) for r in registers[:-4]]
    count = inner // 4
    found = multiply_fragments(
        np.arange(32), words[:count], words[count:], [np.array(r) for r in registers[-4:]]
    )
    expected = a.astype(np.float32) @ b.astype(np.float32) + c
    for lane in range(32):
        g, t = divmod(lane, 4)
        places = ((g, 2 * t), (g, 2 * t + 1), (g + 8, 2 * t), (g + 8, 2 * t + 1))
        assert [float(r[lane]) for r in found] == [float(expected[p]) for p in places]


SHARED = ".extern .shared .align 16 .b8 s[];"
TO_SHARED = "shl.b32 %r2, %r0, 2; mov.u32 %r3, s; add.s32 %r2, %r2, %r3;"


def test_calls_have_parameters_and_results() -> None:
    function = """.func (.param .b32 result) f(.param .b32 a, .param .align 4 .b8 b[8]) {
        .reg .b32 %r<4>; .reg .pred %p<2>; ld.param.u32 %r1, [a]; ld.param.u32 %r2, [b+4];
        setp.gt.u32 %p1, %r1, 10; @%p1 bra big; st.param.b32 [result+0], %r2; ret;
        big: st.param.b32 [result+0], %r1; ret; }"""
    call = """{ .param .b32 p0; st.param.b32 [p0+0], %r0; .param .align 4 .b8 p1[8];
        st.param.b32 [p1+0], 1; st.param.b32 [p1+4], %r9; .param .b32 back;
        call.uni (back), f, (p0, p1); ld.param.b32 %r1, [back+0]; }"""
    found = Bench(call + call + "st.global.u32 [%d1], %r1;", functions=function).run(RANDOM)
    np.testing.assert_array_equal(found, np.where(np.arange(32) > 10, np.arange(32), RANDOM))


def test_generic_addresses_reach_every_space() -> None:
    code = f"""{TO_SHARED} .local .align 4 .b8 own[8]; st.shared.u32 [%r2], %r9;
        cvt.u64.u32 %d2, %r2; cvta.shared.u64 %d2, %d2; ld.u32 %r4, [%d2];
        mov.u64 %d3, own; cvta.local.u64 %d3, %d3; st.u32 [%d3+4], %r4; ld.u32 %r5, [%d3+4];
        mov.b64 %d4, in; cvta.param.u64 %d4, %d4; ld.u64 %d5, [%d4]; sub.s64 %d5, %d9, %d5;
        cvt.u32.u64 %r6, %d5; add.s32 %r5, %r5, %r6; st.u32 [%d1], %r5;"""
    found = Bench(code, SHARED).run(RANDOM, shared=128)
    np.testing.assert_array_equal(found, RANDOM + 4 * np.arange(32, dtype=np.uint32))


@pytest.mark.parametrize(
    ("code", "what"),
    [
        ("ld.global.u32 %r1, [%d9+128];", "thread 0 .*nobody's"),
        ("ld.global.u32 %r1, [%d1];", "never written"),
        ("st.global.u32 [%d1+4], %r9;", "thread 31 .*nobody's"),
        ("st.global.u32 [0], %r9;", "address not known"),
        ("mov.u64 %d2, 16; st.global.u32 [%d2], %r9;", "outside"),
        ("ld.global.u16 %h1, [%d9+1];", "no multiple of 2"),
        ("ld.global.v2.u32 {%r1, %r2}, [%d9+4];", "no multiple of 8"),
        (f"{TO_SHARED} ld.shared.u32 %r1, [%r2];", "shared memory are never written"),
        (f"{TO_SHARED} st.shared.u32 [%r2+4], %r9;", "thread 31 .*outside of shared"),
        (f"{TO_SHARED} st.shared.u32 [%r2+-4], %r9;", "thread 0 .*outside of shared"),
        (f"{TO_SHARED} shr.u32 %r2, %r2, 1; st.shared.u32 [%r2], %r9;", "thread 1 .*no multiple"),
        ("setp.eq.u32 %p1, %r0, 5; @%p1 ret; vote.sync.any.pred %p2, %p1, -1;", "waits for"),
        ("setp.eq.u32 %p1, %r0, 5; @%p1 ret; bar.sync 0;", "waits for"),
        ("setp.eq.u32 %p1, %r0, 5; @%p1 bra other; bar.warp.sync -1; ret; other: "
         "bar.warp.sync -1;", "waits for"),
        ("vote.sync.any.pred %p2, %p1, 15;", "its mask does not name"),
        ("tanh.approx.f32 %f1, %f1;", "not known: tanh"),
        ("ld.param.u32 %r1, [out+16];", "parameter at 16"),
    ],
)  # fmt: skip
def test_what_a_device_would_not_allow_is_refused(code: str, what: str) -> None:
    with pytest.raises(PtxError, match=what):
        Bench(code, SHARED).run(RANDOM, shared=128)


def test_what_a_kernel_is_not_compiled_for_is_refused() -> None:
    text = f"{HEAD}.visible .entry k(.param .u64 out)\n.maxntid 64, 1, 1\n{{ ret; }}"
    module = LoadedModule(parse(text), memory := DeviceMemory(1 << 16))
    for grid, block in (((1, 1, 1), (96, 1, 1)), ((1, 65536, 1), (32, 1, 1))):
        with pytest.raises(PtxError, match="cannot be launched"):
            Launch(module.kernel("k"), memory, grid, block, 0, b"")
    Launch(module.kernel("k"), memory, (2, 1, 1), (64, 1, 1), 0, b"").run()


NEIGHBOUR = "xor.b32 %r4, %r2, {}; ld.shared.u32 %r1, [%r4];"
WRITE = f"{TO_SHARED} st.shared.u32 [%r2], %r9;"


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        (WRITE + NEIGHBOUR.format(4), "reads what is written by"),
        (WRITE + "bar.warp.sync -1;" + NEIGHBOUR.format(4), ""),
        (WRITE + "bar.warp.sync -1;" + NEIGHBOUR.format(128), "reads what is written by"),
        (WRITE + "bar.sync 0;" + NEIGHBOUR.format(128), ""),
        (WRITE + "bar.sync 0;" + NEIGHBOUR.format(4) + "st.shared.u32 [%r2], %r1;",
         "overwrites what is read by"),
        (WRITE + "bar.sync 0;" + NEIGHBOUR.format(128) + "bar.warp.sync -1;"
         "st.shared.u32 [%r2], %r1;", "overwrites what is read by"),
        (WRITE + "bar.sync 0;" + NEIGHBOUR.format(4) + "bar.warp.sync -1;"
         "st.shared.u32 [%r2], %r1;", ""),
        (WRITE + "bar.sync 0; ld.shared.u32 %r1, [s+8]; bar.warp.sync -1;"
         "st.shared.u32 [%r2], %r1;", "overwrites what is read by"),
        (WRITE + "bar.sync 0; ld.shared.u32 %r1, [s+8]; bar.sync 0;"
         "st.shared.u32 [%r2], %r1;", ""),
        (WRITE + "st.shared.u32 [s], %r9;", "overwrites what is written|same instruction"),
        (WRITE + "vote.sync.ballot.b32 %r5, %p1, -1;" + NEIGHBOUR.format(4),
         "reads what is written by"),
    ],
)  # fmt: skip
def test_races_in_shared_memory_are_found(code: str, problem: str) -> None:
    bench = Bench(code, SHARED)
    if not problem:
        bench.run(RANDOM, 64, shared=256, races=True, blocks=2)
        return
    with pytest.raises(PtxError, match=problem):
        bench.run(RANDOM, 64, shared=256, races=True, blocks=2)


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("and.b64 %d2, %d1, -128; st.global.u32 [%d2], %r9;", "in the same instruction writes"),
        ("st.global.u32 [%d1], %r9; st.global.u32 [%d0], %r9;", "overwrites global"),
        ("st.global.u32 [%d1], %r9; ld.global.u32 %r1, [%d0];", "reads global memory"),
        ("st.global.u32 [%d1], %r9; ld.global.u32 %r1, [%d1];", ""),
        ("st.global.u32 [%d1], %r9; st.volatile.global.u32 [%d0], %r9;", ""),
    ],
)
def test_races_in_global_memory_are_found(code: str, problem: str) -> None:
    bench = Bench(code)
    bench.run(RANDOM, 64)
    if not problem:
        for _ in range(2):
            bench.run(RANDOM, 64, races=True)
        return
    with pytest.raises(PtxError, match=problem):
        bench.run(RANDOM, 64, races=True)


def test_an_order_that_threads_may_not_count_on_is_tried() -> None:
    """Warps that wait for no barrier see each other's words in some orders only."""
    code = f"""setp.gt.u32 %p1, %r0, 31; @%p1 bra second; {TO_SHARED} st.shared.u32 [%r2], %r9;
        ret; second: {TO_SHARED} ld.shared.u32 %r1, [%r2+-128]; st.global.u32 [%d1], %r1;"""
    bench = Bench(code, SHARED)
    bench.run(RANDOM, 64, shared=128)
    failed = 0
    for order in range(10):
        try:
            bench.run(RANDOM, 64, shared=128, order=order)
        except PtxError as error:
            assert "never written" in str(error)
            failed += 1
    assert 0 < failed < 10


@pytest.mark.parametrize(
    ("code", "wavefronts"),
    [
        (f"{TO_SHARED} st.shared.u32 [%r2], %r9;", 1),
        (f"{TO_SHARED} shl.b32 %r2, %r2, 1; st.shared.u32 [%r2], %r9;", 2),
        (f"{TO_SHARED} shl.b32 %r2, %r2, 5; st.shared.u32 [%r2], %r9;", 32),
        (f"{TO_SHARED} and.b32 %r2, %r2, 124; st.shared.u8 [%r2], %r9;", 1),
        (f"{TO_SHARED} shl.b32 %r2, %r2, 2; st.shared.v4.u32 [%r2], {{%r9, %r9, %r9, %r9}};", 4),
    ],
)
def test_wavefronts_are_counted(code: str, wavefronts: int) -> None:
    bench = Bench(code, SHARED)
    bench.run(RANDOM, shared=4096, count=True)
    counters = bench.counters
    assert counters is not None
    found = total(counters.shared, "store")
    assert (found.transactions, found.requests) == (wavefronts, 1)


def test_instructions_and_sectors_are_counted() -> None:
    code = (
        "setp.lt.u32 %p1, %r0, 8; @%p1 bra out; add.s32 %r9, %r9, 1; out: st.global.u32 [%d1], %r9;"
    )
    bench = Bench(code)
    bench.run(RANDOM, 64, count=True)
    counters = bench.counters
    assert counters is not None
    assert counters.instructions["global load"] == 2
    assert counters.of_global["store u32"] == Accesses(2, 8, 256)
    assert counters.lanes["integer"] == 3 * 64 + 56  # three sums of addresses before
    assert counters.instructions["branch"] == 2 + 2  # of two warps, and their ends
