# SPDX-License-Identifier: Apache-2.0
"""What the CUDA kernels execute for a symbol or a weight, counted on a machine for PTX.

    python -m benchmarks.cuda_counts [--architecture 90]

No GPU takes part: nvcc compiles the kernels to PTX, and the tests' machine (`tests/ptx`) executes
it on the CPU and counts. They are counts of an emulated run and no times, of PTX and not of the
device's own instructions, of which the assembler needs about as many or fewer. Prints Markdown
tables: for each way to choose tables and each layout of them the instructions of a warp for 32
symbols, of what they are, the wavefronts of shared memory and the sectors of global memory; the
wavefronts of each kind of request; and the same for products with packed weights at batch 1. What
a launch does once (copying its tables) is taken out by the difference of two tensors of a blob, or
of two products.
"""

from __future__ import annotations

import collections
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np

from runtime import WideReader, encode_wide
from runtime.gpu import DeviceDecoder
from runtime.gpu_output import Layout, OutputSpec, plan
from runtime.packed import PackedProduct, pack_fields
from tests.ptx.compiled_kernels import ARCHITECTURES, NVCC, compile_once
from tests.ptx.counters import Accesses, Counters, total
from tests.ptx.cuda_runtime import PtxDevice

LAYOUTS: tuple[Layout, ...] = ("direct", "paired", "buckets", "global")
WAYS: dict[str, dict[str, Any]] = {
    "one table": {"classes": False, "contexts": "off"},
    "contexts": {"classes": False, "contexts": "on"},
    "classes": {"contexts": "off"},
    "classes and contexts": {"contexts": "on"},
}
COLUMNS = 512
LANES = 32
OUTPUTS, INPUTS, BITS = 16, 4096, 4
GROUPS = {
    "integer": ("integer", "multiply"),
    "predicate": ("predicate",),
    "move, convert": ("move", "convert"),
    "float, tensor": ("float", "tensor"),
    "branch": ("branch",),
    "vote, popc, barrier": ("warp", "barrier"),
    "memory": ("shared load", "shared store", "global load", "global store", "other memory"),
}

Found = dict[str, Any]


def make_symbols(rows: int, seed: int) -> Any:
    """int8 [1, rows, COLUMNS], about 2 bits each, with scales by row and by column."""
    random = np.random.default_rng(seed)
    spread = np.exp(0.4 * random.normal(size=(rows, 1)) + 0.3 * random.normal(size=COLUMNS))
    noise = random.laplace(size=(rows, COLUMNS)) * 0.72 * spread
    return np.clip(np.rint(noise), -127, 127).astype(np.int8)[None]


def counted(device: PtxDevice, architecture: int, run: Callable[[], None]) -> list[Counters]:
    """The counters of the launches of `run`."""
    with device.in_use(architecture=architecture, multiprocessors=1, count=True):
        run()
        assert device.counters is not None
        return [counters for _, counters in device.counters]


def difference(first: Counters, second: Counters, units: float) -> Found:
    """What the second launch executed more than the first, for one of so many units more."""
    instructions: collections.Counter[str] = collections.Counter(second.instructions)
    instructions.subtract(first.instructions)
    found: Found = {
        group: sum(instructions[name] for name in names) / units for group, names in GROUPS.items()
    }
    found["instructions"] = sum(instructions.values()) / units
    for memory in ("shared", "of_global"):
        before, after = getattr(first, memory), getattr(second, memory)
        ways: dict[str, Accesses] = {}
        for name, one in after.items():
            less = before.get(name, Accesses())
            ways[name] = Accesses(
                one.requests - less.requests,
                one.transactions - less.transactions,
                one.bytes - less.bytes,
            )
        found[memory] = ways
        for way in ("load", "store"):
            whole = total(ways, way)
            found[f"{memory} {way}"] = whole.transactions / units
            found[f"{memory} {way} bytes"] = whole.bytes / units
    return found


def decoder_counts(device: PtxDevice, architecture: int, options: Found, layout: Layout) -> Found:
    """For 32 symbols; of the difference of a tensor of three blocks and one of one block."""
    tensors = [make_symbols(rows, rows) for rows in (LANES, 3 * LANES)]
    reader = WideReader(encode_wide(tensors, steps=COLUMNS, **options))
    found: list[Counters] = []
    for number, symbols in enumerate(tensors):

        def run(number: int = number, symbols: Any = symbols) -> None:
            decoder = DeviceDecoder(reader, number, layout=layout)
            out = device.allocate(symbols.size)
            decoder.decode_into(out, symbols.size, OutputSpec("symbols", symbols.shape))
            if not np.array_equal(device.download(out, np.int8, symbols.shape), symbols):
                raise SystemExit("the symbols are wrong")

        found.append(counted(device, architecture, run)[-1])
    made = difference(*found, 2 * COLUMNS)
    words = sum(tensor.code_words for tensor in reader.tensors)
    made["bits"] = words * 16 / sum(symbols.size for symbols in tensors)
    made["tables"] = plan(reader, 1, layout=layout).tables
    return made


def product_counts(device: PtxDevice, architecture: int, kind: str) -> Found:
    """For 32 weights of a product of one row with a tile of 16 outputs."""
    random = np.random.default_rng(0)
    found: list[Counters] = []
    for inputs in (INPUTS, 2 * INPUTS):
        fields = random.integers(0, 1 << BITS, (OUTPUTS, inputs)).astype(np.uint8)
        arrays = {
            "packed": pack_fields(fields, BITS),
            "scales": random.uniform(0.01, 0.1, (inputs // 128, OUTPUTS)).astype(np.float16),
            "x": random.normal(size=(1, inputs)).astype(np.float16),
        }
        if kind == "codebook":
            arrays["codebook"] = random.normal(size=1 << BITS).astype(np.float16)

        def run(inputs: int = inputs, arrays: Found = arrays) -> None:
            addresses = {name: device.upload(array) for name, array in arrays.items()}
            product = PackedProduct(OUTPUTS, inputs, BITS, 128, 8)
            product.launch(1, out=device.allocate(2 * OUTPUTS), **addresses)

        found.append(counted(device, architecture, run)[-1])
    return difference(*found, OUTPUTS * INPUTS / LANES)


def markdown(title: str, head: list[str], rows: list[list[str]]) -> str:
    lines = [f"**{title}**", "", f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return "\n".join([*lines, *(f"| {' | '.join(row)} |" for row in rows), ""])


def request_table(found: dict[tuple[str, Layout], Found]) -> str:
    """Kinds of requests to shared memory that come once for a few symbols at least."""
    kinds = sorted({
        kind
        for one in found.values()
        for kind, access in one["shared"].items()
        if access.requests >= COLUMNS / 25
    })  # fmt: skip
    rows = []
    for (way, layout), one in found.items():
        accesses = [one["shared"].get(kind, Accesses()) for kind in kinds]
        cells = [
            f"{a.requests / (2 * COLUMNS):.2f} x {a.transactions / a.requests:.2f}"
            if a.requests
            else "-"
            for a in accesses
        ]
        rows.append([way, layout, *cells])
    title = (
        "Requests of a warp to shared memory for 32 symbols x wavefronts of one; "
        '"called": where a tile is written out'
    )
    return markdown(title, ["tables", "layout", *kinds], rows)


@click.command()
@click.option("--architecture", default=ARCHITECTURES[0], show_default=True,
              type=click.Choice(ARCHITECTURES), help="Compute capability, 90 for 9.0.")  # fmt: skip
def main(architecture: int) -> None:
    """Count what the CUDA kernels execute, on a machine for PTX."""
    if NVCC is None:
        sys.exit("cuda_counts: there is no nvcc, which compiles the kernels to PTX")
    with tempfile.TemporaryDirectory() as name:
        device = PtxDevice(compile_once(Path(name)))
        found = {
            (way, layout): decoder_counts(device, architecture, options, layout)
            for way, options in WAYS.items()
            for layout in LAYOUTS
        }
        products = {
            kind: product_counts(device, architecture, kind) for kind in ("uniform", "codebook")
        }
    bits = found["classes and contexts", "paired"]["bits"]
    print(f"Counts of an emulated run of PTX of compute_{architecture}; no times.\n")
    memory = ["shared load", "shared store", "of_global load", "of_global store"]
    print(markdown(
        f"Decoding of about {bits:.1f} bits a symbol to int8: a warp, for 32 symbols",
        ["tables", "layout", "instructions", *GROUPS, "wavefronts: loads", "stores",
         "sectors: loads", "stores"],
        [[f"{way} ({one['tables']})", layout, f"{one['instructions']:.1f}",
          *(f"{one[group]:.1f}" for group in GROUPS), *(f"{one[name]:.2f}" for name in memory)]
         for (way, layout), one in found.items()],
    ))  # fmt: skip
    print(request_table(found))
    print(markdown(
        f"Products of one row with {BITS}-bit weights, 128 inputs a scale: a warp, for 32 weights",
        ["weights", "instructions", *GROUPS, "wavefronts", "bytes loaded", "bytes of sectors"],
        [[kind, f"{one['instructions']:.2f}", *(f"{one[group]:.2f}" for group in GROUPS),
          f"{one['shared load']:.2f}", f"{one['of_global load bytes']:.1f}",
          f"{one['of_global load'] * 32:.1f}"] for kind, one in products.items()],
    ))  # fmt: skip


if __name__ == "__main__":
    main()
