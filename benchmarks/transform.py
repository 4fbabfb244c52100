# SPDX-License-Identifier: Apache-2.0
"""Transform domain on real networks: bytes of the file at equal error of the outputs.

    python -m benchmarks.transform [NETWORK] [--kinds dct,dct+,auto] [--layers conv|linear|all]

The same uniform quantiser, with a step of so many root mean squares of each weight, is applied to
the weights, to their coefficients, and to those with steps per frequency that follow the
autocorrelation of what each weight is multiplied with (marked +). Files are written and run by
ONNX Runtime in load mode on real inputs; the error is that of the outputs. Printed for each
method and step: bytes, signal-to-noise ratio of the outputs, and the bytes against those that the
quantiser without transform needs for the same ratio (interpolated between its points; "-" beyond
them). Outputs scatter: another rounding of the same weights moves a point by half a decibel or so,
which is 3 % of the bytes, so the last column gives the mean change over all steps (Bjontegaard,
"Calculation of average PSNR differences between RD-curves", VCEG-M33, 2001). "auto" chooses for
each weight, and may leave the transform out; what it chose at a step of 1 is printed behind the
table. Convolutions are transformed along their taps, matrices in blocks of 64 along their last
axis.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt

from benchmarks.input_spectra import autocorrelations
from benchmarks.networks import library_run, stock_run
from models.network import Feeds, Network
from models.zoo import network
from passes.model_file import write_model
from passes.schemes import AutoTransform, Parameters, Scheme, Transform, Uniform
from passes.schemes.transform_sensitivity import frequency_sensitivity, toeplitz
from passes.select_weights import Weight
from toolkit.pipeline import finish, read_source

STEPS = (0.35, 0.5, 0.7, 1.0, 1.4, 2.0, 2.8)
Fit = Callable[[Weight, float], Parameters]


def outputs(path: Path, feeds: Feeds, plain: bool = False) -> npt.NDArray[np.float64]:
    """All outputs of a file on `feeds`, flat."""
    run = stock_run(path) if plain else library_run(path, "load")
    return np.concatenate([np.asarray(o, np.float64).reshape(-1) for o in run(feeds)])


def measure(
    entry: Network, fit: Fit, steps: Sequence[float], feeds: Feeds, reference: npt.NDArray
) -> list[tuple[int, float]]:
    """(bytes, signal-to-noise ratio in dB) of the file for each step."""
    found = []
    for step in steps:
        source = read_source(entry.onnx_path())
        large = {n: w for n, w in source.weights.items() if w.role == "weight"}
        plan = {name: fit(weight, step) for name, weight in large.items()}
        finished = finish(source.model, plan, "never")
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "small.onnx")
            size = write_model(finished.model, path)
            error = outputs(path, feeds) - reference
        noise = float(np.vdot(error, error))
        found.append((size, 10 * np.log10(float(np.vdot(reference, reference)) / noise)))
    return found


def scheme_of(
    kind: str, weight: Weight, step: float, spectrum: npt.NDArray[np.float64] | None, layers: str
) -> Scheme:
    """The scheme of one weight; plain where the kind is none or the layer is not asked for."""
    inner = Uniform(relative_step=step)
    taps = int(np.prod(weight.shape[2:]))
    layer = "conv" if weight.is_convolution and taps > 1 else "linear"
    if kind == "none" or layers not in (layer, "all") or weight.num_elements == max(weight.shape):
        return inner
    block = 64 if layer == "linear" else None
    if kind == "auto":
        lags = None if spectrum is None else tuple(spectrum.tolist())
        return AutoTransform(inner, blocks=(block,) if block else (0, 16, 8), autocorrelation=lags)
    if spectrum is None:
        return Transform(kind, block=block, inner=inner)
    power = frequency_sensitivity(kind, taps, None, toeplitz(spectrum))
    return Transform(kind, relative_step=step, sensitivity=tuple(power.tolist()))


def relative_bytes(points: list[tuple[int, float]], plain: list[tuple[int, float]]) -> list[str]:
    """Change of bytes against `plain` at the same ratio, in percent."""
    ordered = sorted(plain, key=lambda point: point[1])
    ratios, sizes = [p[1] for p in ordered], [np.log(p[0]) for p in ordered]
    texts = []
    for size, ratio in points:
        if not ratios[0] <= ratio <= ratios[-1]:
            texts.append("-")
        else:
            texts.append(f"{100 * (size / np.exp(np.interp(ratio, ratios, sizes)) - 1):+.1f} %")
    return texts


def mean_change(points: list[tuple[int, float]], plain: list[tuple[int, float]]) -> str:
    """Mean change of bytes over the ratios that both reach, in percent: the difference of cubics
    fitted to the logarithms of the bytes."""
    low = max(min(ratio for _, ratio in curve) for curve in (points, plain))
    high = min(max(ratio for _, ratio in curve) for curve in (points, plain))
    degree = min(3, len(points) - 1)
    if degree < 1 or low >= high:
        return "-"
    means = []
    for curve in (points, plain):
        fit = np.polyfit([r - low for _, r in curve], [np.log(s) for s, _ in curve], degree)
        means.append(float(np.polyval(np.polyint(fit), high - low)) / (high - low))
    return f"{100 * np.expm1(means[0] - means[1]):+.1f} %"


@click.command()
@click.argument("name", default="crepe")
@click.option("--kinds", default="dct,dst,dft,haar,db4,dct+,auto,auto+", show_default=True)
@click.option("--steps", default=",".join(map(str, STEPS)), show_default=True)
@click.option("--layers", type=click.Choice(["conv", "linear", "all"]), default="conv")
@click.option("--frames", default=40, show_default=True, help="Real inputs to measure on.")
def main(name: str, kinds: str, steps: str, layers: str, frames: int) -> None:
    """Bytes at equal output error, with and without transform."""
    entry = network(name)
    values = [float(step) for step in steps.split(",")]
    feeds = {key: value[frames:] for key, value in entry.calibration(2 * frames).items()}
    known = {key: value[:frames] for key, value in entry.calibration(2 * frames).items()}
    reference = outputs(entry.onnx_path(), feeds, plain=True)
    spectra = autocorrelations(entry.onnx_path(), known)
    print(f"{name}: {entry.onnx_path().stat().st_size:,} bytes; {frames} real inputs")
    print(
        "step, root mean squares".ljust(24)
        + "".join(f"{step:>26}" for step in values)
        + "      mean"
    )
    plain: list[tuple[int, float]] = []
    decisions: list[str] = []
    for kind in ["none", *kinds.split(",")]:

        def fit(weight: Weight, step: float, kind: str = kind) -> Parameters:
            spectrum = spectra.get(weight.name) if kind.endswith("+") else None
            scheme = scheme_of(kind.rstrip("+"), weight, step, spectrum, layers)
            if step == 1 and isinstance(scheme, AutoTransform):
                decisions.append(f"{kind:6}{weight.name}: {scheme.decide(weight.array()).text}")
            return scheme.fit(weight.array())

        points = measure(entry, fit, values, feeds, reference)
        plain = plain or points
        cells = zip(points, relative_bytes(points, plain), strict=True)
        row = [f"{size:>11,} {ratio:5.1f} {change:>8}" for (size, ratio), change in cells]
        change = mean_change(points, plain)
        print(f"{kind:24}" + "".join(f"{cell:>26}" for cell in row) + f"{change:>10}", flush=True)
    print("\n".join(decisions))


if __name__ == "__main__":
    main()
