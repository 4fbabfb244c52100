# SPDX-License-Identifier: Apache-2.0
"""Products with packed weights on a GPU beside float16 ones, and layers by where their weights lie.

    python -m benchmarks.cuda_packed [--folder F] [--seconds S]

The float16 product is torch's (cuBLAS), which stands for ONNX Runtime's CUDA provider where that
is not at hand: the provider calls cuBLAS too. Launches are captured in a CUDA graph, so that what
is timed is the device's work. Each product cycles through weights of more than 200 MB, so that
none comes from the cache. Values are compared with a product in float32 before they are timed.
The second table runs a chain of feed-forward layers: weights in float16, packed, or decoded from
the compressed stream just before each product, on one stream as ONNX Runtime's session does it, or
one layer ahead on a second stream.
Where there is no GPU the tables say "not measured".
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.cuda_decode import NOT_MEASURED, time_launches
from runtime import WideReader, encode_wide, gpu
from runtime.gpu_output import OutputSpec
from runtime.packed import PackedProduct, pack_fields
from runtime.wide import short_rows

SHAPES = ((4096, 4096), (11008, 4096), (4096, 11008))  # outputs, inputs
BATCHES = (1, 2, 4, 8, 16)
KINDS = (*((bits, "uniform") for bits in (4, 8, 6, 3, 2)), (4, "codebook"))
CACHE_BYTES = 200 << 20
LAYERS = 6  # pairs of matrices: 1.08 GB in float16
LAYER_BATCHES = (1, 8, 32)
LANE_STEPS = 512
PRODUCT_HEAD = ("outputs x inputs", "weight", "batch", "us", "float16 us", "times as fast",
                "GB/s of packed weights")  # fmt: skip
LAYER_HEAD = ("weights", "batch", "us", "of float16", "MB of weights", "of float16's")


def captured(launch: Callable[[int], None], count: int) -> Callable[[], None]:
    """A CUDA graph of `launch(0) ... launch(count - 1)`; the function replays it."""
    import torch

    for number in range(count):  # handles and workspaces are made outside of the capture
        launch(number)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for number in range(count):
            launch(number)
    return graph.replay


def stream() -> int:
    import torch

    return int(torch.cuda.current_stream().cuda_stream)


class PackedWeights:
    """Weights of one shape on the device, `count` copies with different fields."""

    def __init__(self, outputs: int, inputs: int, bits: int, kind: str, count: int) -> None:
        import torch

        random = np.random.default_rng(0)
        self.product = PackedProduct(outputs, inputs, bits, 0, 1 << (bits - 1))
        fields = random.integers(0, 1 << bits, (outputs, inputs)).astype(np.uint8)
        first = torch.from_numpy(pack_fields(fields, bits).view(np.int32)).cuda()
        # The order of the words means nothing to the clock; only the first copy is checked.
        self.packed = [first, *(first.flip(0).contiguous() for _ in range(count - 1))]
        self.scales = torch.rand((1, outputs), device="cuda").half() * 0.01
        self.codebook = torch.randn(1 << bits, device="cuda").half() if kind == "codebook" else None
        values = torch.from_numpy(fields).cuda()
        if self.codebook is not None:
            self.weight = self.codebook[values.long()].float()
        else:
            self.weight = values.float() - (1 << (bits - 1))
        self.weight = self.weight * self.scales[0].float()[:, None]
        self.bytes = first.numel() * 4

    def multiply(self, x: Any, out: Any, number: int) -> None:
        more = {} if self.codebook is None else {"codebook": self.codebook.data_ptr()}
        self.product.launch(
            x.shape[0],
            stream=stream(),
            x=x.data_ptr(),
            packed=self.packed[number].data_ptr(),
            scales=self.scales.data_ptr(),
            out=out.data_ptr(),
            **more,
        )

    def check(self, x: Any, out: Any) -> None:
        """Raises `SystemExit` where a product is not that of the weight."""
        import torch

        self.multiply(x, out, 0)
        exact = x.double() @ self.weight.double().T
        off = (out.double() - exact).norm() / exact.norm()
        torch.cuda.synchronize()
        if not off < 1e-3:
            raise SystemExit(f"{self.product}: relative error {float(off):.2g}")


def measure_products(seconds: float) -> list[dict[str, Any]]:
    """Every shape, kind and batch."""
    import torch

    found = []
    for outputs, inputs in SHAPES:
        full = max(2, math.ceil(CACHE_BYTES / (outputs * inputs * 2)))
        halves = [
            torch.randn((inputs, outputs), device="cuda", dtype=torch.float16) * 0.01
            for _ in range(full)
        ]
        plain: dict[int, float] = {}
        for batch in BATCHES:
            x = torch.randn((batch, inputs), device="cuda", dtype=torch.float16)
            out = torch.empty((batch, outputs), device="cuda", dtype=torch.float16)

            def multiply(n: int, x: Any = x, out: Any = out, weights: Any = halves) -> None:
                torch.matmul(x, weights[n], out=out)

            plain[batch] = time_launches(captured(multiply, full), seconds) / full
        for bits, kind in KINDS:
            count = max(2, math.ceil(CACHE_BYTES / (outputs * inputs * bits // 8)))
            weights = PackedWeights(outputs, inputs, bits, kind, count)
            for batch in BATCHES:
                x = torch.randn((batch, inputs), device="cuda", dtype=torch.float16)
                out = torch.full((batch, outputs), 7.0, device="cuda", dtype=torch.float16)
                weights.check(x, out)

                def packed(n: int, x: Any = x, out: Any = out, w: Any = weights) -> None:
                    w.multiply(x, out, n)

                took = time_launches(captured(packed, count), seconds) / count
                found.append(
                    {
                        "shape": f"{outputs} x {inputs}",
                        "weight": f"{bits} bit {kind}",
                        "batch": batch,
                        "microseconds": took * 1e6,
                        "float16_microseconds": plain[batch] * 1e6,
                        "gb_per_second": weights.bytes / took / 1e9,
                    }
                )
            del weights
    return found


def measure_layers(seconds: float) -> list[dict[str, Any]]:
    """A chain of feed-forward layers, by where their weights lie."""
    import torch

    random = torch.Generator("cuda").manual_seed(0)
    shapes = [(11008, 4096), (4096, 11008)] * LAYERS
    random_symbols = [
        torch.clamp(torch.round(torch.randn(s, generator=random, device="cuda") * 1.2), -8, 7)
        for s in shapes
    ]
    symbols = [s.to(torch.int8) for s in random_symbols]
    del random_symbols
    scales = [torch.rand(s[0], device="cuda").half() * 0.01 for s in shapes]
    halves = [(q.float() * s.float()[:, None]).half() for q, s in zip(symbols, scales, strict=True)]
    packed, decoders, readers, stream_bytes, packed_bytes = [], [], [], 0, 0
    for q in symbols:
        fields = (q + 8).to(torch.uint8).cpu().numpy()
        packed.append(torch.from_numpy(pack_fields(fields, 4).view(np.int32)).cuda())
        packed_bytes += packed[-1].numel() * 4
        rows = q.cpu().numpy().reshape(short_rows((q.shape[0], 1, q.shape[1]), LANE_STEPS))
        readers.append(WideReader(encode_wide([rows], steps=LANE_STEPS)))
        decoders.append(gpu.DeviceDecoder(readers[-1], 0))
        stream_bytes += sum(decoders[-1].describe()[1:])
    half_bytes = sum(h.numel() * 2 for h in halves)
    most = max(h.numel() for h in halves)
    scratch = [torch.empty(most, dtype=torch.float16, device="cuda") for _ in range(2)]
    side = torch.cuda.Stream()
    found = []
    for batch in LAYER_BATCHES:
        x = torch.randn((batch, 4096), device="cuda", dtype=torch.float16)
        places = [torch.empty((batch, s[0]), device="cuda", dtype=torch.float16) for s in shapes]

        def input_of(n: int, x: Any = x, places: Any = places) -> Any:
            return places[n - 1] if n else x

        def plain(n: int, places: Any = places, of: Any = input_of) -> None:
            torch.matmul(of(n), halves[n].T, out=places[n])

        def from_packed(n: int, places: Any = places, of: Any = input_of) -> None:
            product = PackedProduct(*shapes[n], 4, 0, 8)
            product.launch(
                of(n).shape[0],
                stream=stream(),
                x=of(n).data_ptr(),
                packed=packed[n].data_ptr(),
                scales=scales[n].data_ptr(),
                out=places[n].data_ptr(),
            )

        def decode(n: int, into: Any) -> Any:
            size = shapes[n][0] * shapes[n][1]
            decoders[n].decode_into(
                into.data_ptr(),
                size * 2,
                OutputSpec("float16", shapes[n], axis=0),
                stream=stream(),
                scales=(scales[n].data_ptr(), "float16", (shapes[n][0],)),
            )
            return into[:size].view(shapes[n])

        def from_stream(
            n: int, places: Any = places, of: Any = input_of, decode: Any = decode
        ) -> None:
            torch.matmul(of(n), decode(n, scratch[0]).T, out=places[n])

        ready = [torch.cuda.Event() for _ in shapes]
        used = [torch.cuda.Event() for _ in shapes]

        def ahead(
            n: int,
            places: Any = places,
            of: Any = input_of,
            decode: Any = decode,
            ready: Any = ready,
            used: Any = used,
        ) -> None:
            """The next layer is decoded on a second stream while this one is multiplied."""
            main = torch.cuda.current_stream()
            for layer in [0, 1] if n == 0 else [n + 1]:
                if layer == 0:
                    side.wait_stream(main)
                if layer >= len(shapes):
                    continue
                with torch.cuda.stream(side):
                    if layer >= 2:
                        side.wait_event(used[layer - 2])
                    decode(layer, scratch[layer % 2])
                    ready[layer].record(side)
            main.wait_event(ready[n])
            size = shapes[n][0] * shapes[n][1]
            weight = scratch[n % 2][:size].view(shapes[n])
            torch.matmul(of(n), weight.T, out=places[n])
            used[n].record(main)

        ways = {
            "float16": (plain, half_bytes),
            "packed 4 bit": (from_packed, packed_bytes),
            "stream": (from_stream, stream_bytes + scratch[0].numel() * 2),
            "stream, a layer ahead": (ahead, stream_bytes + scratch[0].numel() * 4),
        }
        first = None
        for name, (way, num_bytes) in ways.items():
            replay = captured(way, len(shapes))
            replay()
            torch.cuda.synchronize()
            last = places[-1].float()
            if first is None:
                wanted, first = last.clone(), 0.0
            off = float((last - wanted).norm() / wanted.norm())
            if not off < 2e-2:
                raise SystemExit(f"{name}, batch {batch}: relative error {off:.2g}")
            took = time_launches(replay, seconds)
            first = first or took
            found.append(
                {
                    "weights": name,
                    "batch": batch,
                    "microseconds": took * 1e6,
                    "of_float16": took / first,
                    "megabytes": num_bytes / 1e6,
                    "bytes_of_float16": num_bytes / half_bytes,
                    "relative_error": off,
                }
            )
    for decoder in decoders:
        decoder.check_decoded()
    return found


def markdown(title: str, head: tuple[str, ...], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [f"### {title}", "", "| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)]) + "\n"


def product_rows(found: list[dict[str, Any]]) -> list[list[str]]:
    return [
        [
            f["shape"],
            f["weight"],
            str(f["batch"]),
            f"{f['microseconds']:.2f}",
            f"{f['float16_microseconds']:.2f}",
            f"{f['float16_microseconds'] / f['microseconds']:.2f}",
            f"{f['gb_per_second']:.0f}",
        ]
        for f in found
    ]


def layer_rows(found: list[dict[str, Any]]) -> list[list[str]]:
    return [
        [
            f["weights"],
            str(f["batch"]),
            f"{f['microseconds']:.1f}",
            f"{f['of_float16']:.2f}",
            f"{f['megabytes']:.1f}",
            f"{f['bytes_of_float16']:.3f}",
        ]
        for f in found
    ]


@click.command()
@click.option("--folder", type=click.Path(path_type=Path), help="Where tables and figures go.")
@click.option("--seconds", default=0.1, show_default=True, help="Least time of one measurement.")
def main(folder: Path | None, seconds: float) -> None:
    """Measure products with packed weights on the GPU."""
    problem = gpu.why_not()
    figures: dict[str, Any] = {"problem": problem}
    if problem:
        products = [[f"{n} x {k}", *[NOT_MEASURED] * 6] for n, k in SHAPES]
        layers = [
            [w, *[NOT_MEASURED] * 5]
            for w in ("float16", "packed 4 bit", "stream", "stream, a layer ahead")
        ]
        head = f"No GPU: {problem}\n\n"
    else:
        figures["products"] = measure_products(seconds)
        figures["layers"] = measure_layers(seconds)
        products, layers = product_rows(figures["products"]), layer_rows(figures["layers"])
        head = f"{gpu.examine().name}\n\n"
    text = head + markdown("Products", PRODUCT_HEAD, products) + "\n"
    text += markdown(f"{2 * LAYERS} layers of 4096 x 11008", LAYER_HEAD, layers)
    print(text)
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "cuda_packed.md").write_text(text, encoding="utf-8")
        (folder / "cuda_packed.json").write_text(json.dumps(figures, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
