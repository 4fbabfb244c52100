# SPDX-License-Identifier: Apache-2.0
"""Counting instructions in the machine code of the CUDA kernels."""

from __future__ import annotations

from collections import Counter

from benchmarks.cuda_sass import WORK, hot_loop, name_of, pipe_of

KERNEL = """
        /*0000*/                   MOV R1, c[0x0][0x28] ;
.L_x_1:
        /*0010*/                   LDS R2, [R3+UR4] ;
        /*0020*/               @P0 BRA `(.L_x_2) ;
        /*0030*/                   LDG.E.64 R4, desc[UR6][R4.64] ;
.L_x_2:
        /*0040*/                   IMAD R5, R2, 0x4, R5 ;
        /*0050*/                   VOTE.ANY R6, PT, P1 ;
        /*0060*/                   POPC R6, R6 ;
        /*0070*/              @!P1 PRMT R7, R6, 0x5410, R7 ;
        /*0080*/               @P2 BRA `(.L_x_1) ;
.L_x_3:
        /*0090*/                   VOTE.ANY R6, PT, P1 ;
        /*00a0*/                   POPC R6, R6 ;
        /*00b0*/                   IADD3 R6, R6, R7, RZ ;
        /*00c0*/                   IADD3 R6, R6, R7, RZ ;
        /*00d0*/                   IADD3 R6, R6, R7, RZ ;
        /*00e0*/                   IADD3 R6, R6, R7, RZ ;
        /*00f0*/                   IADD3 R6, R6, R7, RZ ;
        /*0100*/                   IADD3 R6, R6, R7, RZ ;
        /*0110*/               @P2 BRA `(.L_x_3) ;
        /*0120*/                   EXIT ;
"""


def test_the_shortest_loop_for_each_unit_is_counted_without_what_is_seldom_executed() -> None:
    _, unit, _, partner, rare = WORK["decode"]
    body, units = hot_loop(KERNEL, unit, partner, rare)
    assert units == 1
    names = [line.split()[0].split(".")[0] for line in body]
    assert names == ["LDS", "BRA", "IMAD", "VOTE", "POPC", "PRMT", "BRA"]
    assert Counter(map(pipe_of, body)) == {"LSU": 1, "FMA": 1, "ALU": 2, "XU": 1, "other": 2}


def test_kernels_are_named_by_what_they_are_made_for() -> None:
    decode = "_ZN7toolkit4cuda11decode_wideIaLNS0_6LayoutE1ELNS0_7SetKindE3EEEvNS0_12DecodeLaunchE"
    assert name_of(decode) == "int8 paired, contexts, columns"
    assert name_of("_Z15multiply_packedILi4ELb1EEEvNS0_9PackedJobE") == "4 bits, codebook"
    assert name_of("_Z10patch_wideN7toolkit4cuda10LaunchPartE") == ""
