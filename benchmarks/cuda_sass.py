# SPDX-License-Identifier: Apache-2.0
"""What bounds the CUDA kernels, counted in their machine code: no GPU needed.

    python -m benchmarks.cuda_sass [decode|packed] [--arch A] [--clock GHZ] [--multiprocessors N]

Compiles a source of kernels, finds the innermost loop of each that does the work (the fewest
instructions for each ballot, or for each product of the tensor cores), and counts the instructions
of a pass by the pipe that executes them. Code that a pass takes seldom (code words, once
in 128; inputs and scales of products) is left out. With the
rates below and a clock this gives a bound for each pipe in G symbols (weights) a second. Bounds
are not speeds: conflicts in shared memory and latency come on top.

Rates are those of the CUDA C++ Programming Guide's table of the throughput of native arithmetic
instructions for compute capability 9.0, in lanes a clock and multiprocessor: 64 for integer
additions, comparisons, shifts, logic and permutations, 64 for integer multiply-add, which has a
pipe of its own beside it, 16 for population count, 32 for shared memory (one access of 4 bytes a
bank); 128 instructions of a lane are issued.

Needs nvcc, and nvdisasm on PATH.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections import Counter
from pathlib import Path

import click

SOURCES = Path(__file__).resolve().parent.parent / "runtime" / "csrc"
# Pipe: lanes a clock and multiprocessor.
RATES = {"issue": 128, "ALU": 64, "FMA": 64, "XU": 16, "LSU": 32}
FMA = {"IMAD", "FFMA", "FMUL", "FADD", "HADD2", "HMUL2", "HFMA2", "IDP"}
XU = {"POPC", "MUFU", "I2F", "F2I", "F2F", "FLO", "BREV"}
LSU = {"LDS", "STS", "LDG", "STG", "LD", "ST", "SHFL", "LDSM", "ATOMS", "LDL", "STL"}
OTHER = {"BRA", "BSSY", "BSYNC", "CALL", "RET", "NOP", "EXIT", "BAR", "WARPSYNC", "LDC", "HMMA",
         "REDUX", "S2R", "R2UR", "S2UR", "YIELD", "MOV32I"}  # fmt: skip
# File, the instruction that counts passes, symbols or weights of each, what goes with it in the
# loop that is meant, and what marks code that is passed over as a rule (code words and x, scales).
WORK = {
    "decode": ("wide_kernels.cu", r"VOTEU?\.ANY U?R", 32, "U?POPC", "LDG.E.64"),
    "packed": ("packed_matmul.cu", "HMMA", 256, "LDS", "LDG"),
}
LAYOUTS = ("direct", "paired", "buckets", "global")
KINDS = ("plain", "contexts", "columns", "contexts, columns", "any", "trellis")


def pipe_of(instruction: str) -> str:
    """The pipe that executes an instruction (without its predicate); "other": control, uniform."""
    name = instruction.split()[0].split(".")[0]
    if name in OTHER or (name.startswith("U") and name != "UNDEF"):
        return "other"
    return "FMA" if name in FMA else "XU" if name in XU else "LSU" if name in LSU else "ALU"


def disassemble(source: str, arch: str) -> str:
    """Machine code of a source of kernels. Raises `CalledProcessError` where a tool fails."""
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "kernels.cubin"
        command = ["nvcc", "-std=c++17", "-O3", "-cubin", f"-arch={arch}", "-I", str(SOURCES)]
        command += ["-I", str(SOURCES / "cuda"), "-o", str(made), str(SOURCES / "cuda" / source)]
        subprocess.run(command, check=True, capture_output=True, text=True)
        return subprocess.run(
            ["nvdisasm", "-c", str(made)], check=True, capture_output=True, text=True
        ).stdout


def instructions_of(text: str) -> tuple[list[str], dict[str, int]]:
    """Instructions of a kernel in their order, and where its labels point."""
    found, labels = [], {}
    for line in text.splitlines():
        if label := re.match(r"(\.L_x_\d+):", line):
            labels[label[1]] = len(found)
        elif code := re.match(r"\s+/\*[0-9a-f]{4,6}\*/\s+(.*?)\s*;", line):
            found.append(code[1])
    return found, labels


def hot_loop(text: str, unit: str, partner: str, rare: str) -> tuple[list[str], int]:
    """Instructions of a pass of the loop with the fewest for each `unit`, and its units."""
    code, labels = instructions_of(text)
    target = {
        i: labels[goal[1]]
        for i, line in enumerate(code)
        if re.search(r"\bBRA ", line) and (goal := re.search(r"`\((\.L_x_\d+)\)", line))
    }
    best: tuple[list[str], int] = [], 0
    for end, begin in target.items():
        body, at = [], begin
        while begin <= at <= end:
            line = code[at]
            body.append(re.sub(r"^@!?U?P\d+ ", "", line))
            over = target.get(at, 0) if "BRA.DIV" not in line else 0
            skipped = code[at:over] if at < over <= end else []
            seldom = any(rare in line for line in skipped) and not any(
                re.search(unit, line) for line in skipped
            )
            at = over if seldom else at + 1
        units = sum(bool(re.match(unit, line)) for line in body)
        partners = sum(bool(re.match(partner, line)) for line in body)
        if 0 < units <= 2 * partners and (
            not best[1] or len(body) * best[1] < len(best[0]) * units
        ):
            best = body, units
    return best


def name_of(mangled: str) -> str:
    if match := re.search(r"decode_wideI(.)LNS0_6LayoutE(\d)ELNS0_7SetKindE(\d)", mangled):
        width = "int8" if match[1] == "a" else "int16"
        return f"{width} {LAYOUTS[int(match[2])]}, {KINDS[int(match[3])]}"
    if match := re.search(r"multiply_packedILi(\d)ELb(\d)", mangled):
        return f"{match[1]} bits{', codebook' if match[2] == '1' else ''}"
    return ""


@click.command()
@click.argument("what", type=click.Choice(sorted(WORK)), default="decode")
@click.option("--arch", default="sm_90", show_default=True)
@click.option("--clock", default=1.98, show_default=True, help="GHz.")
@click.option("--multiprocessors", default=132, show_default=True)
def main(what: str, arch: str, clock: float, multiprocessors: int) -> None:
    """Print instructions and bounds of the kernels' loops as a Markdown table."""
    for tool in ("nvcc", "nvdisasm"):
        if shutil.which(tool) is None:
            raise SystemExit(f"{tool} is not on PATH")
    source, unit, work, partner, rare = WORK[what]
    pipes = list(RATES)
    click.echo(
        "| kernel | "
        + " | ".join(pipes)
        + " | other | "
        + " | ".join(f"{p}, G/s" for p in pipes)
        + " |"
    )
    click.echo("|---|" + "---|" * (2 * len(pipes) + 1))
    for kernel in re.split(r"\n\.text\.", disassemble(source, arch))[1:]:
        name = name_of(kernel.split(":", 1)[0])
        body, units = hot_loop(kernel, unit, partner, rare)
        if not name or not units:
            continue
        counts = Counter(map(pipe_of, body))
        counts["issue"] = len(body)
        each = {p: counts[p] / units for p in [*pipes, "other"]}
        cells = [f"{each[p]:.1f}" for p in [*pipes, "other"]]
        for p in pipes:
            bound = multiprocessors * clock * RATES[p] / 32 * work / each[p] if each[p] else 0
            cells.append(f"{bound:,.0f}" if bound else "–")
        click.echo(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
