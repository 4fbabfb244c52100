# SPDX-License-Identifier: Apache-2.0
"""Transform domain on real networks: bytes of the file at equal error of the outputs.

    python -m benchmarks.transform [NETWORK] [--kinds dct,dct+,auto] [--layers conv|linear|all]

The same uniform quantiser, with a step of so many root mean squares of each weight, is applied to
the weights, to their coefficients, and to those with steps per frequency that follow the
autocorrelation of what each weight is multiplied with (marked +). Files are written and run by
ONNX Runtime in load mode on real inputs; the error is that of the outputs. Printed for each
method and step: bytes, signal-to-noise ratio of the outputs, and the bytes against those that the
quantiser without transform needs for the same ratio (interpolated between its points; "-" beyond
them), and their mean over all steps (Bjontegaard, "Calculation of average PSNR differences between
RD-curves", VCEG-M33, 2001). Outputs scatter: another rounding of the same weights moves a file's
ratio by half a decibel or so, which is 3 % of the bytes. So each point is the mean of several files
whose steps lie a few percent around the one given: of the logarithms of their bytes, and of the
powers of their errors.

"auto" chooses for each weight, and may leave the transform out. Behind the table is printed what it
chose and what that does to each weight for itself: bytes of the symbols against the quantiser
alone, and the error in the layer's output, in decibels, as the autocorrelation of its real inputs
gives it. Convolutions are transformed along their taps, matrices in blocks of 64 along their last
axis.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import click
import numpy as np
import numpy.typing as npt

from benchmarks.input_spectra import autocorrelations
from benchmarks.networks import library_run, stock_run
from models.network import Feeds, Network
from models.zoo import network
from passes.model_file import write_model
from passes.schemes import AutoTransform, Scheme, Transform, Uniform
from passes.schemes.coded_bits import coded_bits
from passes.schemes.transform_sensitivity import frequency_sensitivity, toeplitz
from passes.select_weights import Weight
from toolkit.pipeline import FileLayout, finish, read_source

STEPS = (0.25, 0.35, 0.5, 0.7, 1.0, 1.4, 2.0)
_SPREAD = 1.02  # between the steps of one point
Choice = Callable[[Weight, float], Scheme]
Points = list[tuple[float, float]]


def outputs(path: Path, feeds: Feeds, plain: bool = False) -> npt.NDArray[np.float64]:
    """All outputs of a file on `feeds`, flat."""
    run = stock_run(path) if plain else library_run(path, "load")
    return np.concatenate([np.asarray(o, np.float64).reshape(-1) for o in run(feeds)])


def around(step: float, draws: int) -> list[float]:
    """So many steps whose geometric mean is ``step``, a few percent apart."""
    return [step * _SPREAD ** (place - (draws - 1) / 2) for place in range(draws)]


def measure(
    entry: Network,
    scheme: Choice,
    steps: Sequence[float],
    draws: int,
    feeds: Feeds,
    reference: npt.NDArray,
) -> list[tuple[float, float]]:
    """(bytes, signal-to-noise ratio in dB) of the file for each step."""
    found = []
    for step in steps:
        sizes, noises = [], []
        for near in around(step, draws):
            source = read_source(entry.onnx_path())
            large = {n: w for n, w in source.weights.items() if w.role == "weight"}
            plan = {
                name: scheme(weight, near).fit(weight.array()) for name, weight in large.items()
            }
            finished = finish(source.model, plan, FileLayout("never"))
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder, "small.onnx")
                sizes.append(write_model(finished.model, path))
                error = outputs(path, feeds) - reference
            noises.append(float(np.vdot(error, error)))
        signal = float(np.vdot(reference, reference))
        size = float(np.exp(np.mean(np.log(sizes))))
        found.append((size, 10 * np.log10(signal / float(np.mean(noises)))))
    return found


def weight_by_weight(
    entry: Network,
    scheme: Choice,
    steps: Sequence[float],
    spectra: Mapping[str, npt.NDArray[np.float64]],
) -> Iterator[str]:
    """Lines: of each weight that "auto" transforms, for each step, what it chose, the bytes against
    the quantiser alone, and the error in the layer's output against its."""
    for name, weight in read_source(entry.onnx_path()).weights.items():
        if weight.role != "weight" or name not in spectra:
            continue
        array, gram, cells = weight.array(), toeplitz(spectra[name]), []
        for step in steps:
            auto = scheme(weight, step)
            if not isinstance(auto, AutoTransform):
                continue
            choice, plain = auto.decide(array).choice, Uniform(relative_step=step).fit(array)
            if choice is None:
                cells.append("left out")
                continue
            fitted = auto.fit(array)
            errors = []
            for parameters in (fitted, plain):
                rows = (parameters.decode() - array).reshape(-1, len(gram)).astype(np.float64)
                errors.append(float(np.vdot(rows, rows @ gram)))
            bits = coded_bits(fitted) / coded_bits(plain)
            decibel = 10 * np.log10(errors[0] / errors[1])
            cells.append(f"{choice} {100 * (bits - 1):+.1f} % {decibel:+.2f} dB")
        if cells:
            yield f"{name:24}" + "".join(f"{cell:>26}" for cell in cells)


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


def relative_bytes(points: Points, plain: Points) -> list[str]:
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


def mean_change(points: Points, plain: Points) -> str:
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
@click.option("--draws", default=5, show_default=True, help="Files for each point.")
@click.option("--frames", default=40, show_default=True, help="Real inputs to measure on.")
def main(name: str, kinds: str, steps: str, layers: str, draws: int, frames: int) -> None:
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
    plain: Points = []
    details: list[str] = []
    for kind in ["none", *kinds.split(",")]:

        def scheme(weight: Weight, step: float, kind: str = kind) -> Scheme:
            spectrum = spectra.get(weight.name) if kind.endswith("+") else None
            return scheme_of(kind.rstrip("+"), weight, step, spectrum, layers)

        points = measure(entry, scheme, values, draws, feeds, reference)
        plain = plain or points
        cells = zip(points, relative_bytes(points, plain), strict=True)
        row = [f"{size:>11,.0f} {ratio:5.1f} {change:>8}" for (size, ratio), change in cells]
        change = mean_change(points, plain)
        print(f"{kind:24}" + "".join(f"{cell:>26}" for cell in row) + f"{change:>10}", flush=True)
        if kind.rstrip("+") == "auto":
            details += [f"{kind}, weight by weight"]
            details += weight_by_weight(entry, scheme, values, spectra)
    print("\n".join(details))


if __name__ == "__main__":
    main()
