# SPDX-License-Identifier: Apache-2.0
"""Latency and device memory of sessions on ONNX Runtime's CUDA provider, by where weights lie.

    python -m benchmarks.cuda_session PLAIN.onnx COMPRESSED.onnx ... [--folder F]

PLAIN is a float16 model, COMPRESSED the same model as `toolkit compress` writes it. Dense decodes
on the device or on the host; stream decodes groups of weights ahead, one weight, or none. Each way
is measured in a process of its own: session start from a warm file cache, device memory that the
session takes, what it has taken after runs of one input, and the median latency at batch 1, 8 and
32, inputs bound on the device. Where there is no GPU or no CUDA provider, or without models, the
table says "not measured".
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
import numpy as np

from benchmarks.cuda_decode import NOT_MEASURED
from benchmarks.cuda_packed import markdown
from runtime import gpu

NONE_AHEAD, ONE_AHEAD = "stream, none ahead", "stream, one ahead"
FROM_HOST = "dense, from the host"
WAYS = ("float16", "dense", FROM_HOST, "packed", "stream", ONE_AHEAD, NONE_AHEAD)
ENTRIES = {
    NONE_AHEAD: ("toolkit.prefetch", "0"),
    ONE_AHEAD: ("toolkit.prefetch_bytes", "1"),
    FROM_HOST: ("toolkit.unpack", "host"),
}
BATCHES = (1, 8, 32)
MEMORY = ("MB on the device", "MB after runs")
HEAD = ("weights", "start s", *MEMORY, *(f"ms at batch {n}" for n in BATCHES))
PROVIDER = "CUDAExecutionProvider"


def obstacle() -> str:
    """Why nothing can be measured here; empty where it can."""
    import onnxruntime

    if PROVIDER not in onnxruntime.get_available_providers():
        return f"this onnxruntime has no {PROVIDER}"
    return gpu.why_not()


def feeds_of(session: Any, batch: int) -> dict[str, np.ndarray]:
    """Made-up inputs: open dimensions are the batch, further ones 128."""
    random = np.random.default_rng(0)
    feeds = {}
    for item in session.get_inputs():
        shape = [
            size if isinstance(size, int) else (batch if place == 0 else 128)
            for place, size in enumerate(item.shape)
        ]
        if "int" in item.type:
            kind = np.int32 if "int32" in item.type else np.int64
            feeds[item.name] = random.integers(0, 2, shape).astype(kind)
        else:
            kind = np.float16 if "float16" in item.type else np.float32
            feeds[item.name] = random.normal(size=shape).astype(kind)
    return feeds


def measure(way: str, plain: str, compressed: str) -> dict[str, Any]:
    """One way, in this process."""
    import onnxruntime

    import runtime

    path = plain if way == "float16" else compressed
    Path(path).read_bytes()  # into the cache of files
    # A context takes memory of its own, which is no weight's.
    onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros(1, np.float32), "cuda", 0)
    before = gpu.examine().free_bytes
    start = time.perf_counter()
    if way == "float16":
        session = onnxruntime.InferenceSession(path, providers=[PROVIDER])
    else:
        options = onnxruntime.SessionOptions()
        if way in ENTRIES:
            options.add_session_config_entry(*ENTRIES[way])
        residency: Any = way.split(",")[0]
        session = runtime.InferenceSession(path, options, providers=[PROVIDER], residency=residency)
    found: dict[str, Any] = {"start": time.perf_counter() - start}
    if PROVIDER not in session.get_providers():
        raise SystemExit(f"{way}: the session runs without {PROVIDER}")
    found["bytes"] = before - gpu.examine().free_bytes
    for batch in BATCHES:
        binding = session.io_binding()
        for name, array in feeds_of(session, batch).items():
            value = onnxruntime.OrtValue.ortvalue_from_numpy(array, "cuda", 0)
            binding.bind_ortvalue_input(name, value)
        for item in session.get_outputs():
            binding.bind_output(item.name, "cuda")
        times = []
        for number in range(60):
            begin = time.perf_counter()
            session.run_with_iobinding(binding)
            binding.synchronize_outputs()
            if number >= 10:
                times.append(time.perf_counter() - begin)
        found[f"batch {batch}"] = statistics.median(times)
        if batch == BATCHES[0]:  # with decoded weights, and the little that one input needs
            found["bytes after runs"] = before - gpu.examine().free_bytes
    return found


def run_apart(way: str, plain: Path, compressed: Path) -> dict[str, Any]:
    """Measure one way in a process of its own.

    Raises:
        RuntimeError: it failed; the message is the last thing it said.
    """
    command = [sys.executable, "-m", "benchmarks.cuda_session", str(plain), str(compressed)]
    result = subprocess.run([*command, "--way", way], capture_output=True, text=True, check=False)
    if result.returncode:
        raise RuntimeError(result.stderr.strip().splitlines()[-1] if result.stderr else "failed")
    return dict(json.loads(result.stdout.strip().splitlines()[-1]))


def table_of(plain: Path, compressed: Path) -> str:
    """Every way of a network."""
    rows = []
    for name in WAYS:
        try:
            found = run_apart(name, plain, compressed)
        except RuntimeError as error:
            rows.append([name, str(error), *[NOT_MEASURED] * (len(HEAD) - 2)])
            continue
        latencies = (f"{found[f'batch {n}'] * 1e3:.2f}" for n in BATCHES)
        memory = (f"{found[key] / 1e6:.0f}" for key in ("bytes", "bytes after runs"))
        rows.append([name, f"{found['start']:.2f}", *memory, *latencies])
    return markdown(f"Sessions, {compressed.name.split('.')[0]}", HEAD, rows)


@click.command()
@click.argument("models", nargs=-1, type=click.Path(path_type=Path, exists=True))
@click.option("--folder", type=click.Path(path_type=Path), help="Where the tables go.")
@click.option("--way", type=click.Choice(WAYS), help="Measure one way, and print it as JSON.")
def main(models: tuple[Path, ...], folder: Path | None, way: str | None) -> None:
    """Measure sessions on the CUDA provider."""
    if len(models) % 2:
        raise click.UsageError("models come in pairs: PLAIN.onnx COMPRESSED.onnx")
    if way:
        print(json.dumps(measure(way, *map(str, models))))
        return
    problem = obstacle() or ("" if models else "no models were named")
    if problem:
        rows = [[name, *[NOT_MEASURED] * (len(HEAD) - 1)] for name in WAYS]
        text = f"Not measured: {problem}\n\n" + markdown("Sessions", HEAD, rows)
        print(text)
    else:
        tables = []
        for plain, compressed in zip(models[::2], models[1::2], strict=True):
            tables.append(table_of(plain, compressed))
            print(tables[-1], flush=True)
        text = "\n".join(tables)
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "cuda_session.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
