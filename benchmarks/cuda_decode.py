# SPDX-License-Identifier: Apache-2.0
"""Speed of the wide decoder on a GPU: G symbols a second and GB/s written, beside a plain copy.

    python -m benchmarks.cuda_decode [--folder F] [--seconds S] [--largest N]

Prints one Markdown table each of the ways to choose tables, of the layouts, of sizes, and of a
network's small tensors decoded one by one and together; with `--folder` writes them there, and the
figures as JSON. Symbols are rounded Laplacian noise with scales by row, about 2 bits each. Every
decoding is compared with the symbols before it is timed. A time is the median of the launches
between two events. Where there is no GPU the tables say "not measured".
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np

from runtime import WideReader, encode_wide, gpu
from runtime.gpu_output import LAYOUTS, OutputSpec, describe_output

COLUMNS = 1024  # of a row, and a lane has one: 32 x 1024 symbols are one block, one warp's work
SIZES = (1 << 16, 1 << 18, 1 << 20, 1 << 22, 1 << 24, 1 << 26, 1 << 28, 1 << 30)
MAIN = 1 << 28
WAYS: dict[str, dict[str, Any]] = {
    "one table": {"classes": False, "contexts": "off"},
    "classes": {"contexts": "off"},
    "classes and contexts": {"contexts": "on"},
}
SMALL, SMALL_SHAPE = 512, (384, 1536)  # tensors of a network that repeats its layers
TOGETHER = (1, 4, 16, 64, 512)  # of them at once
NOT_MEASURED = "not measured"


def make_symbols(count: int, seed: int) -> np.ndarray:
    """int8 [1, rows, COLUMNS or fewer], about 2 bits each."""
    import torch

    columns = min(COLUMNS, count)
    rows = count // columns
    random = torch.Generator("cuda").manual_seed(seed)
    spread = torch.exp(0.4 * torch.randn((rows, 1), generator=random, device="cuda"))
    out = np.empty((1, rows, columns), np.int8)
    step = max(1, (1 << 26) // columns)
    for first in range(0, rows, step):
        part = spread[first : first + step]
        uniform = torch.rand((len(part), columns), generator=random, device="cuda") - 0.5
        noise = -torch.sign(uniform) * torch.log1p(-2 * uniform.abs().clamp(max=0.4999999))
        values = torch.round(0.72 * part * noise).clamp(-127, 127).to(torch.int8)
        out[0, first : first + step] = values.cpu().numpy()
    return out


def time_launches(launch: Callable[[], None], least_seconds: float) -> float:
    """Median seconds of a launch, by events around groups of them."""
    import torch

    for _ in range(3):
        launch()
    torch.cuda.synchronize()
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    begin.record()
    launch()
    end.record()
    torch.cuda.synchronize()
    group = max(1, min(1000, int(0.005 / max(begin.elapsed_time(end) / 1e3, 1e-6))))
    times = []
    stop = time.perf_counter() + least_seconds
    while len(times) < 5 or (time.perf_counter() < stop and len(times) < 50):
        begin.record()
        for _ in range(group):
            launch()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end) / 1e3 / group)
    return statistics.median(times)


def copy_rate(num_bytes: int, least_seconds: float) -> float:
    """Bytes read and written a second by a device-to-device copy."""
    import torch

    source = torch.randint(0, 255, (num_bytes,), dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return 2 * num_bytes / time_launches(lambda: target.copy_(source), least_seconds)


class Case:
    """One blob on the device, and what it must decode to."""

    def __init__(self, symbols: np.ndarray, layout: Any = "auto", **options: Any) -> None:
        import torch

        self.shape = symbols.shape[1:]
        self.reader = WideReader(encode_wide([symbols], steps=COLUMNS, **options))
        self.bits = sum(t.code_words for t in self.reader.tensors) * 16 / symbols.size
        self.symbols = torch.from_numpy(symbols[0]).cuda()
        self.scales = torch.rand(self.shape[0], device="cuda") * 0.1
        self.place(layout)

    def place(self, layout: Any) -> None:
        self.decoder = gpu.DeviceDecoder(self.reader, 0, layout=layout)

    def measure(self, dtype: str, seconds: float) -> dict[str, Any]:
        """Check the values, then time them. Raises `SystemExit` where they differ."""
        import torch

        kinds = {"symbols": torch.int8, "float16": torch.float16, "float32": torch.float32}
        kind = kinds[dtype]
        # A fresh part of memory at every launch would cost memory; the output is larger than L2.
        out = torch.full(self.shape, 77, dtype=kind, device="cuda")
        spec = OutputSpec(dtype, tuple(self.shape), axis=0)
        given: dict[str, Any] = {}
        wanted = self.symbols
        if dtype != "symbols":
            given["scales"] = self.scales.data_ptr(), "float32", (self.shape[0],)
            wanted = (self.symbols.float() * self.scales[:, None]).to(kind)
        num_bytes = out.numel() * out.element_size()

        def launch() -> None:
            self.decoder.decode_into(out.data_ptr(), num_bytes, spec, **given)

        launch()
        torch.cuda.synchronize()
        self.decoder.check_decoded()
        if not torch.equal(out, wanted):
            raise SystemExit(f"{dtype} {tuple(self.shape)}: decoded values differ")
        took = time_launches(launch, seconds)
        info, blob, image = self.decoder.describe()
        return {
            "symbols": out.numel(),
            "dtype": "int8" if dtype == "symbols" else dtype,
            "bits": self.bits,
            "microseconds": took * 1e6,
            "gsymbols": out.numel() / took / 1e9,
            "written": num_bytes / took / 1e9,
            "moved": (num_bytes + blob) / took / 1e9,
            "layout": list(LAYOUTS)[info.layout + 1],
            "tables": info.tables,
            "warps": info.grid * info.warps,
            "image_bytes": image,
        }


HEAD = ("case", "symbols", "bits", "output", "tables", "layout", "warps", "us", "G symbols/s",
        "GB/s written", "of copy bandwidth")  # fmt: skip


def row_of(name: str, found: dict[str, Any], copy: float) -> list[str]:
    return [
        name,
        f"{found['symbols']:,}",
        f"{found['bits']:.2f}",
        found["dtype"],
        str(found["tables"]),
        found["layout"],
        str(found["warps"]),
        f"{found['microseconds']:.1f}",
        f"{found['gsymbols']:.1f}",
        f"{found['written']:.1f}",
        f"{found['moved'] * 1e9 / copy:.1%}",
    ]


def table(title: str, rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [f"### {title}", "", "| " + " | ".join(HEAD) + " |", "|" + " --- |" * len(HEAD)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def unmeasured(titles: dict[str, list[str]]) -> str:
    """The same tables where there is no GPU."""
    blank = [NOT_MEASURED] * (len(HEAD) - 1)
    return "\n".join(
        table(title, [[name, *blank] for name in names]) for title, names in titles.items()
    )


TITLES = {
    "Ways to choose tables": list(WAYS),
    "Layouts of tables": [name for name in LAYOUTS if name != "auto"],
    "Sizes": [f"{size:,}" for size in SIZES],
    "Small tensors": [
        f"{count} at once, lanes of {steps}" for steps in (1024, 512, 256) for count in TOGETHER
    ],
}


def small_tensors(seconds: float, steps: int, copy: float) -> list[list[str]]:
    """A network's weights of SMALL_SHAPE to float16, so many at once as TOGETHER says."""
    import torch

    rows, columns = SMALL_SHAPE
    size = rows * columns
    symbols = make_symbols(SMALL * size, 3).reshape(SMALL, rows, columns)
    # Rows are divided, as for a GPU `toolkit compress --for-gpu` does: a lane has one at least.
    part = max(n for n in range(1, steps + 1) if columns % n == 0)
    reader = WideReader(encode_wide([each.reshape(1, -1, part) for each in symbols], steps=part))
    scales = torch.rand(rows, device="cuda") * 0.1
    given = {"scales": (scales.data_ptr(), "float32", (rows,))}
    out = torch.empty((SMALL, rows, columns), dtype=torch.float16, device="cuda")
    output = describe_output(OutputSpec("float16", SMALL_SHAPE, axis=0), **given)
    requests = [
        gpu.Request(gpu.DeviceDecoder(reader, n), output, out[n].data_ptr(), 2 * size)
        for n in range(SMALL)
    ]
    gpu.decode_together(requests)
    torch.cuda.synchronize()
    wanted = torch.from_numpy(symbols).cuda().float() * scales[:, None]
    if not torch.equal(out, wanted.to(torch.float16)):
        raise SystemExit("small tensors: decoded values differ")
    info, blob, _ = requests[0].decoder.describe()
    found = []
    for name, count in zip(
        [name for name in TITLES["Small tensors"] if name.endswith(f" {steps}")], TOGETHER,
        strict=True,
    ):  # fmt: skip
        parts = [requests[n : n + count] for n in range(0, SMALL, count)]

        def launch(parts: list[list[gpu.Request]] = parts) -> None:
            for part in parts:
                gpu.decode_together(part)

        took = time_launches(launch, seconds)
        written = 2 * SMALL * size
        measured = {
            "symbols": SMALL * size,
            "bits": 8 * blob / (SMALL * size),
            "dtype": "float16",
            "tables": info.tables,
            "layout": list(LAYOUTS)[info.layout + 1],
            "warps": min(info.num_blocks * count, 24 * gpu.examine().multiprocessors),
            "microseconds": took * 1e6,
            "gsymbols": SMALL * size / took / 1e9,
            "written": written / took / 1e9,
            "moved": (written + blob) / took / 1e9,
        }
        found.append(row_of(name, measured, copy))
    return found


def measure_all(seconds: float, largest: int, budget: float) -> tuple[str, dict[str, Any]]:
    """Every table, and the figures."""
    stop = time.perf_counter() + budget
    copy = copy_rate(1 << 31, seconds)
    figures: dict[str, Any] = {"gpu": gpu.examine().__dict__, "copy_bytes_per_second": copy}
    texts = [f"{gpu.examine().name}; device-to-device copy {copy / 1e12:.2f} TB/s, both ways.\n"]
    symbols = make_symbols(min(MAIN, largest), 1)
    rows = []
    case = None
    for name, options in WAYS.items():
        case = Case(symbols, **options)
        for dtype in ("symbols", "float16", "float32"):
            found = case.measure(dtype, seconds)
            figures[f"{name} {found['dtype']}"] = found
            rows.append(row_of(name, found, copy))
    texts.append(table("Ways to choose tables", rows))
    rows = []
    for layout in TITLES["Layouts of tables"]:
        try:
            case.place(layout)
        except ValueError:
            rows.append([layout, *["does not fit"] * (len(HEAD) - 1)])
            continue
        found = case.measure("symbols", seconds)
        figures[f"layout {layout}"] = found
        rows.append(row_of(layout, found, copy))
    texts.append(table("Layouts of tables", rows))
    del case
    rows = []
    for size in SIZES:
        name = f"{size:,}"
        if size > largest or time.perf_counter() > stop:
            rows.append([name, *[NOT_MEASURED] * (len(HEAD) - 1)])
            continue
        found = Case(make_symbols(size - (size == 1 << 30) * COLUMNS, 2), contexts="off").measure(
            "symbols", seconds
        )
        figures[f"size {size}"] = found
        rows.append(row_of(name, found, copy))
    texts.append(table("Sizes", rows))
    rows = []
    for steps in (1024, 512, 256):
        if time.perf_counter() < stop:
            rows += small_tensors(seconds, steps, copy)
    measured = {row[0] for row in rows}
    rows += [
        [name, *[NOT_MEASURED] * (len(HEAD) - 1)]
        for name in TITLES["Small tensors"]
        if name not in measured
    ]
    texts.append(table("Small tensors", rows))
    return "\n".join(texts), figures


@click.command()
@click.option("--folder", type=click.Path(path_type=Path), help="Where tables and figures go.")
@click.option("--seconds", default=0.3, show_default=True, help="Least time of one measurement.")
@click.option("--largest", default=1 << 30, show_default=True, help="Most symbols.")
@click.option("--budget", default=150.0, show_default=True, help="Seconds for everything.")
def main(folder: Path | None, seconds: float, largest: int, budget: float) -> None:
    """Measure the wide decoder on the GPU."""
    problem = gpu.why_not()
    if problem:
        text, figures = f"No GPU: {problem}\n\n{unmeasured(TITLES)}", {"problem": problem}
    else:
        text, figures = measure_all(seconds, largest, budget)
    print(text)
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "cuda_decode.md").write_text(text, encoding="utf-8")
        (folder / "cuda_decode.json").write_text(json.dumps(figures, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
