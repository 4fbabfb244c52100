# SPDX-License-Identifier: Apache-2.0
"""Every recipe of docs/METHODS.md on the real networks that the page names, in the three ways to
run a file: the weights that were fitted come out, and with them the outputs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import toolkit
from models.fetch import DataUnavailable
from models.network import Feeds, Network
from models.zoo import network
from passes import Coding, Recipe, model_to_proto, write_model
from passes.schemes import Parameters, Prune, Uniform
from tests.methods_page import Method, methods
from toolkit.cli import main
from toolkit.given_settings import GivenSettings
from toolkit.ort_session import open_session, run_named
from toolkit.pipeline import (
    FileLayout,
    Finished,
    Source,
    finish,
    fit_all,
    keep_factors,
    read_source,
)
from toolkit.verify import check_weights, expected_weights, run_compressed, run_stock

CASES = [(m, name) for m in methods() if m.is_recipe for name in m.networks]
ROUND_OFF = 1e-4
"""Of the largest output: ONNX Runtime adds up in another order where it fuses other nodes, and
where a layer computes with factors."""


@pytest.fixture(scope="module")
def original() -> Callable[[str], tuple[Network, Feeds]]:
    """The network with its file in the cache, and one real sample."""
    known: dict[str, tuple[Network, Feeds]] = {}

    def find(name: str) -> tuple[Network, Feeds]:
        if name not in known:
            entry = network(name)
            try:
                entry.onnx_path()
                known[name] = entry, entry.feeds(1)
            except DataUnavailable as error:
                pytest.skip(str(error))
        return known[name]

    return find


@dataclass
class Compressed:
    """A network under parameters: the model, what of it was `encoded`, and beside it `plain`, the
    original network with the weights that the file should give, nothing compressed."""

    finished: Finished
    encoded: dict[str, Parameters]
    plain: onnx.ModelProto


def compressed(
    source: Source, fitted: dict[str, Parameters], codings: dict[str, Coding] | None = None
) -> Compressed:
    """What `toolkit compress` makes of fitted parameters."""
    plain = model_to_proto(source.model)
    plan, _ = keep_factors(source.model, fitted)
    finished = finish(source.model, plan, FileLayout("always"), codings)
    names = {row.name for row in finished.encoded}
    left = [name for name in plan if name not in names]  # as they were: too small to gain
    for tensor in plain.graph.initializer:
        if tensor.name in fitted and tensor.name not in left:
            value = fitted[tensor.name].decode()
            tensor.CopyFrom(onnx.numpy_helper.from_array(value, tensor.name))
    return Compressed(finished, {n: p for n, p in plan.items() if n in names}, plain)


def check_three_ways(found: Compressed, feeds: Feeds, folder: Path) -> Path:
    """Writes the file, compares weights and outputs, and returns its path."""
    path, plain = folder / "small.onnx", folder / "plain.onnx"
    write_model(found.finished.model, path)
    onnx.save(found.plain, str(plain))
    assert found.encoded
    check_weights(path, expected_weights(found.encoded), [], 1)
    expected = run_named(open_session(plain, 1), feeds)
    ways: dict[str, Any] = {
        "load": run_compressed(path, [feeds], 1),
        "stream": run_compressed(path, [feeds], 1, mode="stream"),
        "stock": run_stock(path, [feeds], 1),
    }
    for way, (outputs,) in ways.items():
        for name, value in expected.items():
            limit = ROUND_OFF * max(float(np.abs(value).max()), 1e-6)
            np.testing.assert_allclose(outputs[name], value, 0, limit, err_msg=f"{way} {name}")
    return path


def under(recipe: Recipe, model: Path) -> Compressed:
    """What `toolkit compress` makes of a network under a recipe."""
    source = read_source(model)
    settings = GivenSettings(recipe, None, None, False).assign(source, fixed=True)
    given = {name: how for name, how in settings.items() if how is not None}
    codings: dict[str, Coding] = {name: how.coding for name, how in given.items()}
    return compressed(source, fit_all(source, given, []), codings)


@pytest.mark.parametrize(("method", "name"), CASES, ids=[f"{m.title}-{n}" for m, n in CASES])
def test_recipe(
    method: Method,
    name: str,
    original: Callable[[str], tuple[Network, Feeds]],
    tmp_path: Path,
) -> None:
    entry, feeds = original(name)
    recipe = method.read()
    found = under(recipe, entry.onnx_path())
    path = check_three_ways(found, feeds, tmp_path)
    assert path.stat().st_size < entry.onnx_path().stat().st_size
    rows = found.finished.encoded
    if recipe.default.coder != "auto":
        assert {row.coder for row in rows} == {recipe.default.coder}
    if recipe.minor.coder != "auto":
        assert {row.coder for row in rows if row.role == "minor"} == {recipe.minor.coder}


@pytest.mark.parametrize("name", ["cifar_cnn", "silero_vad"])
def test_an_importance_of_ones_own(
    name: str, original: Callable[[str], tuple[Network, Feeds]], tmp_path: Path
) -> None:
    """The magnitude relative to the largest one of the output channel."""

    def relative(weight: np.ndarray) -> np.ndarray:
        rows = np.abs(weight).reshape(len(weight), -1)
        return np.asarray((rows / (rows.max(1, keepdims=True) + 1e-9)).reshape(weight.shape))

    entry, feeds = original(name)
    source = read_source(entry.onnx_path())
    scheme = Prune(sparsity=0.4, importance=relative, inner=Uniform(bits=8))
    plan: dict[str, Parameters] = {
        name: scheme.fit(weight.array())
        for name, weight in source.weights.items()
        if weight.role != "minor"
    }
    check_three_ways(compressed(source, plan), feeds, tmp_path)


@pytest.mark.parametrize("name", ["cifar_cnn", "mnist_cnn"])
@pytest.mark.parametrize("selection", ["greedy", "lasso", "random"])
def test_channel_pruning(
    name: str,
    selection: str,
    original: Callable[[str], tuple[Network, Feeds]],
    tmp_path: Path,
) -> None:
    """The result is plain ONNX, which a recipe compresses further."""
    entry, feeds = original(name)
    slim = tmp_path / "slim.onnx"
    np.savez(tmp_path / "data.npz", **entry.calibration(32))  # type: ignore[arg-type]
    report = toolkit.prune_channels(
        entry.onnx_path(),
        slim,
        layers={"conv2d*": 0.3},
        selection=selection,
        calibration=tmp_path / "data.npz",
        jobs=1,
    )
    assert report.pruned_macs < 0.8 * report.original_macs
    before = run_named(open_session(entry.onnx_path(), 1), feeds)
    after = run_named(open_session(slim, 1), feeds)
    assert {n: v.shape for n, v in before.items()} == {n: v.shape for n, v in after.items()}
    check_three_ways(under(Recipe(version=1), slim), feeds, tmp_path)


@pytest.mark.parametrize("name", ["cifar_cnn", "mnist_cnn"])
@pytest.mark.parametrize("options", [("--sparsity", "0.7"), ("--min-sqnr", "20")], ids=" ".join)
def test_scan_writes_a_recipe(
    name: str,
    options: tuple[str, str],
    original: Callable[[str], tuple[Network, Feeds]],
    tmp_path: Path,
) -> None:
    entry, feeds = original(name)
    recipe, schemes = tmp_path / "found.yaml", tmp_path / "schemes.yaml"
    steps = "[[{uniform: {relative_step: 0.5}}], [{uniform: {relative_step: 0.1}}], [codebook]]"
    pruning = "[[{prune: {sparsity: [0.4, 0.7, 0.9]}}, {uniform: {bits: 8}}]]"
    schemes.write_text(pruning if options[0] == "--sparsity" else steps)
    np.savez(tmp_path / "data.npz", **entry.calibration(8))  # type: ignore[arg-type]
    given = ["scan", str(entry.onnx_path()), "--recipe", str(recipe), "--schemes", str(schemes)]
    more = ["--calibration", str(tmp_path / "data.npz"), "--jobs", "1", "--json", *options]
    with pytest.raises(SystemExit) as ended:
        main([*given, *more])
    assert not ended.value.code
    found = under(Recipe.read(recipe), entry.onnx_path())
    check_three_ways(found, feeds, tmp_path)
    if options[0] == "--sparsity":
        values = [parameters.decode() for parameters in found.encoded.values()]
        zeros = sum(value.size - np.count_nonzero(value) for value in values)
        assert zeros >= 0.7 * sum(value.size for value in values)


@pytest.mark.parametrize("name", ["cifar_cnn", "silero_vad"])
def test_compress_inspect_expand(
    name: str, original: Callable[[str], tuple[Network, Feeds]], tmp_path: Path
) -> None:
    entry, feeds = original(name)
    small, plain = tmp_path / "small.onnx", tmp_path / "plain.onnx"
    report = toolkit.compress(entry.onnx_path(), small, recipe="uniform-8bit", jobs=1)
    assert report.written
    inspected = toolkit.inspect(small)
    assert inspected.num_bytes == small.stat().st_size
    assert sum(t.num_bytes for t in inspected.tensors) <= inspected.num_bytes
    toolkit.expand(small, plain, jobs=1)
    expected = run_named(open_session(plain, 1), feeds)
    (outputs,) = run_compressed(small, [feeds], 1)
    for key, value in expected.items():
        limit = ROUND_OFF * float(np.abs(value).max())
        np.testing.assert_allclose(outputs[key], value, 0, limit)
