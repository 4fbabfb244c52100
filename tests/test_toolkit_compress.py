# SPDX-License-Identifier: Apache-2.0
"""`compress` on tiny models: what it reaches, proves and leaves behind."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

import runtime
import toolkit
from passes import Recipe
from runtime.wide import WideReader
from tests.toolkit_models import embedding, mlp, without_weights
from toolkit.errors import InputError


def outputs(path: Path, feed, compressed: bool):  # type: ignore[no-untyped-def]
    kind = runtime.InferenceSession if compressed else onnxruntime.InferenceSession
    return kind(str(path), providers=["CPUExecutionProvider"]).run(None, feed)


def test_the_default_keeps_the_outputs_and_shrinks_the_file(tmp_path: Path) -> None:
    model = mlp(tmp_path / "m.onnx")
    report = toolkit.compress(model, tmp_path / "out.onnx")
    assert report.exit_code == 0
    assert report.ratio > 2.5
    assert (tmp_path / "out.onnx").stat().st_size == report.compressed_bytes
    assert report.original_bytes == model.stat().st_size
    feed = {"x": np.random.default_rng(5).standard_normal((50, 64)).astype(np.float32)}
    before, after = outputs(model, feed, False)[0], outputs(tmp_path / "out.onnx", feed, True)[0]
    assert np.sum((before - after) ** 2) < 10**-2.2 * np.sum(before**2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["m.onnx", "out.onnx"]


@pytest.mark.parametrize("target", [20.0, 40.0])
def test_min_sqnr_is_kept_and_not_by_far(tmp_path: Path, target: float) -> None:
    report = toolkit.compress(mlp(tmp_path / "m.onnx"), tmp_path / "o.onnx", min_sqnr=target)
    assert report.reached
    assert target <= report.fidelity.sqnr_db < target + 3


def test_probabilities_are_judged_as_they_are_searched(tmp_path: Path) -> None:
    model = onnx.load(mlp(tmp_path / "plain.onnx"))
    model.graph.node[-1].output[0] = "score"
    model.graph.node.append(onnx.helper.make_node("Sigmoid", ["score"], ["y"]))
    onnx.save(model, tmp_path / "m.onnx")
    report = toolkit.compress(tmp_path / "m.onnx", tmp_path / "small.onnx")
    assert report.reached and "y by the scores before its Sigmoid (2" in report.target
    assert report.fidelity.sqnr_db != pytest.approx(24, abs=0.5)


def test_max_error_is_kept(tmp_path: Path) -> None:
    report = toolkit.compress(mlp(tmp_path / "m.onnx"), tmp_path / "o.onnx", max_error=0.02)
    assert report.reached
    assert 0.005 < report.fidelity.max_relative_error <= 0.02


@pytest.mark.parametrize("option", [{"target_size": 9000}, {"target_ratio": 3.5}])
def test_sizes_are_kept(tmp_path: Path, option) -> None:  # type: ignore[no-untyped-def]
    model = mlp(tmp_path / "m.onnx")
    report = toolkit.compress(model, tmp_path / "o.onnx", **option)
    limit = option.get("target_size") or model.stat().st_size / 3.5
    assert report.reached
    assert 0.9 * limit < (tmp_path / "o.onnx").stat().st_size <= limit


def test_a_size_out_of_reach_still_writes_the_best(tmp_path: Path) -> None:
    report = toolkit.compress(mlp(tmp_path / "m.onnx"), tmp_path / "o.onnx", target_size=500)
    assert not report.reached
    assert report.exit_code == 1
    assert report.written
    assert (tmp_path / "o.onnx").exists()


def test_lossless_gives_the_same_bits(tmp_path: Path) -> None:
    model = mlp(tmp_path / "m.onnx", width=600)
    report = toolkit.compress(model, tmp_path / "o.onnx", lossless=True)
    assert report.exit_code == 0
    assert report.fidelity.exact


def test_bits_fix_the_resolution(tmp_path: Path) -> None:
    report = toolkit.compress(mlp(tmp_path / "m.onnx"), tmp_path / "o.onnx", bits=4)
    assert report.exit_code == 0
    row = next(row for row in report.tensors if row.name == "A")
    weights = numpy_helper.to_array(onnx.load(str(tmp_path / "m.onnx")).graph.initializer[0])
    assert row.step == pytest.approx(np.abs(weights).max() / 7, rel=1e-3)


def test_a_recipe_decides_what_it_names(tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(
        "version: 1\nrules:\n  - match: A\n    settings: {scheme: lossless}\n"
        "default: {scheme: uniform, bits: 5}\n"
    )
    model = mlp(tmp_path / "m.onnx", width=600)
    schemes = {
        row.name: row.scheme
        for row in toolkit.compress(model, tmp_path / "o.onnx", recipe=recipe).tensors
    }
    assert schemes["A"] == "lossless"
    assert schemes["B"] == "uniform"


def test_calibration_is_used(tmp_path: Path) -> None:
    np.savez(tmp_path / "c.npz", ids=np.arange(40, dtype=np.int64).reshape(4, 10))
    model = embedding(tmp_path / "m.onnx")
    report = toolkit.compress(model, tmp_path / "o.onnx", calibration=tmp_path / "c.npz")
    assert report.reached
    assert any("measured on 1 feed" in note for note in report.notes)


def test_nan_weights_are_kept_and_named(tmp_path: Path) -> None:
    path = mlp(tmp_path / "m.onnx", width=600)
    model = onnx.load(str(path))
    values = numpy_helper.to_array(model.graph.initializer[2]).copy()
    values[0, 0] = np.nan
    model.graph.initializer[2].CopyFrom(numpy_helper.from_array(values, "B"))
    onnx.save(model, str(path))
    report = toolkit.compress(path, tmp_path / "o.onnx")
    assert any(note.startswith("B: holds NaN") for note in report.notes)
    assert all(row.scheme == "lossless" for row in report.tensors if row.name == "B")
    assert report.exit_code == 0


def test_a_dry_run_writes_nothing(tmp_path: Path) -> None:
    report = toolkit.compress(mlp(tmp_path / "m.onnx"), dry_run=True)
    assert report.shrunk
    assert not report.written
    assert [p.name for p in tmp_path.iterdir()] == ["m.onnx"]


def test_portable_runs_on_stock_onnxruntime(tmp_path: Path) -> None:
    model = mlp(tmp_path / "m.onnx", width=1200)
    report = toolkit.compress(model, tmp_path / "o.onnx", portable="always", bits=4)
    assert report.functions
    assert report.stock_fidelity is not None
    feed = {"x": np.ones((2, 64), np.float32)}
    stock = outputs(tmp_path / "o.onnx", feed, False)[0]
    np.testing.assert_allclose(stock, outputs(tmp_path / "o.onnx", feed, True)[0], atol=1e-5)


def test_portable_is_refused_before_any_work_where_it_is_no_choice(tmp_path: Path) -> None:
    wrong: Any = True
    with pytest.raises(InputError, match="portable: expected 'auto', .* found True"):
        toolkit.compress(tmp_path / "no-such-model.onnx", tmp_path / "o.onnx", portable=wrong)


def test_the_report_is_json_and_one_html_file(tmp_path: Path) -> None:
    report = toolkit.compress(
        mlp(tmp_path / "m.onnx"), tmp_path / "o.onnx", report=tmp_path / "r.html", min_sqnr=30
    )
    values = json.loads(report.to_json())
    assert values["exit_code"] == 0
    assert values["tensors"][0]["bits_per_weight"] > 0
    page = (tmp_path / "r.html").read_text()
    assert report.command.replace("'", "&#x27;") in page
    assert "<svg" in page
    for outside in ("http://", "https://", "<script", "<link", "@import", "url("):
        assert outside not in page


def test_expand_gives_back_a_plain_model(tmp_path: Path) -> None:
    model = mlp(tmp_path / "m.onnx")
    toolkit.compress(model, tmp_path / "m.compressed.onnx", bits=6)
    found = toolkit.expand(tmp_path / "m.compressed.onnx")
    plain = onnx.load(found.output)
    assert all(node.domain in ("", "ai.onnx") for node in plain.graph.node)
    assert {"A", "B"} <= {tensor.name for tensor in plain.graph.initializer}
    feed = {"x": np.ones((3, 64), np.float32)}
    np.testing.assert_allclose(
        outputs(Path(found.output), feed, False)[0],
        outputs(tmp_path / "m.compressed.onnx", feed, True)[0],
        atol=1e-6,
    )


def test_inspect_accounts_for_the_file(tmp_path: Path) -> None:
    model = mlp(tmp_path / "m.onnx")
    toolkit.compress(model, tmp_path / "c.onnx", bits=4)
    plain, small = toolkit.inspect(model), toolkit.inspect(tmp_path / "c.onnx")
    assert not plain.compressed
    assert small.compressed
    by_name = {tensor.name: tensor for tensor in small.tensors}
    assert by_name["A"].bits_per_weight < 8
    assert 0.3 < sum(tensor.share for tensor in small.tensors) <= 1.01
    assert 0.9 < sum(tensor.share for tensor in plain.tensors) <= 1.0


def test_compare_measures_both_files(tmp_path: Path) -> None:
    model = mlp(tmp_path / "m.onnx")
    toolkit.compress(model, tmp_path / "c.onnx", min_sqnr=30)
    found = toolkit.compare(model, tmp_path / "c.onnx")
    assert found.ratio > 2
    assert 25 < found.fidelity.sqnr_db < 40
    assert found.first_ms > 0


def test_nothing_compressible_is_bad_input(tmp_path: Path) -> None:
    with pytest.raises(toolkit.InputError, match="nothing compressible"):
        toolkit.compress(without_weights(tmp_path / "m.onnx"))


def test_a_file_that_does_not_shrink_is_not_written(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    path = mlp(tmp_path / "m.onnx", width=8)
    model = onnx.load(str(path))
    for tensor in model.graph.initializer:
        raw = rng.integers(0, 2**32, list(tensor.dims), dtype=np.uint32)
        raw &= np.uint32(0xBFFFFFFF)  # no infinities
        values = raw.view(np.float32)
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    onnx.save(model, str(path))
    report = toolkit.compress(path, tmp_path / "o.onnx", lossless=True)
    if not report.shrunk:
        assert report.exit_code == 1
        assert not (tmp_path / "o.onnx").exists()


def test_the_file_and_the_report_hold_the_recipe(tmp_path: Path) -> None:
    model = mlp(tmp_path / "m.onnx")
    recipe = tmp_path / "r.yaml"
    recipe.write_text("version: 1\nrules: [{match: A, settings: {stages: [codebook]}}]\n")
    report = toolkit.compress(model, tmp_path / "c.onnx", recipe=recipe)
    metadata = {p.key: p.value for p in onnx.load(tmp_path / "c.onnx").metadata_props}
    kept = json.loads(metadata["toolkit.settings"])
    assert kept == report.settings
    again = toolkit.compress(
        model, tmp_path / "d.onnx", recipe=Recipe.parse(json.dumps(kept["recipe"]))
    )
    assert again.compressed_bytes == report.compressed_bytes
    assert (tmp_path / "c.onnx").read_bytes() == (tmp_path / "d.onnx").read_bytes()


def test_a_recipe_longer_than_what_it_saves_is_kept_as_its_hash(tmp_path: Path) -> None:
    model, recipe = mlp(tmp_path / "m.onnx"), tmp_path / "r.yaml"
    names = "|".join(["A", *(f"absent{number}" for number in range(200))])
    recipe.write_text(f"version: 1\nrules: [{{regex: {names}, settings: {{bits: 4}}}}]\n")
    report = toolkit.compress(model, tmp_path / "c.onnx", recipe=recipe)
    metadata = {p.key: p.value for p in onnx.load(tmp_path / "c.onnx").metadata_props}
    digest = hashlib.sha256(Recipe.read(recipe).to_json().encode()).hexdigest()
    assert json.loads(metadata["toolkit.settings"]) == {"recipe_sha256": digest}
    assert report.settings["recipe"]["rules"][0]["regex"] == names


def test_ready_recipes_go_by_their_names(tmp_path: Path) -> None:
    model = mlp(tmp_path / "m.onnx")
    report = toolkit.compress(model, tmp_path / "c.onnx", recipe="codebook-4bit")
    assert {row.scheme for row in report.tensors if row.role == "weight"} == {"codebook"}
    assert "--recipe codebook-4bit" in report.command
    with pytest.raises(
        InputError, match="no ready recipe 'codebook-5bit', there are .*codebook-4bit"
    ):
        toolkit.compress(model, tmp_path / "d.onnx", recipe="codebook-5bit")


@pytest.mark.parametrize("coders", [("zero_run", "sparse"), ("zero_run", "raw")])
def test_every_coding_of_a_recipe_is_used_verified_and_undone(
    tmp_path: Path, coders: tuple[str, str]
) -> None:
    model = mlp(tmp_path / "m.onnx")
    rules = [
        f"  - {{match: {name}, settings: {{coder: {coder}, stages: "
        "[{prune: {fraction: 0.05}}, {uniform: {bits: 6}}]}}"
        for name, coder in zip("AB", coders, strict=True)
    ]
    recipe = tmp_path / "r.yaml"
    recipe.write_text("version: 1\ndefault: {scheme: keep}\nrules:\n" + "\n".join(rules) + "\n")
    report = toolkit.compress(model, tmp_path / "o.onnx", recipe=recipe)
    assert {row.name: row.coder for row in report.tensors} == dict(zip("AB", coders, strict=True))
    forms = {t.name: t.scheme for t in toolkit.inspect(tmp_path / "o.onnx").tensors}
    assert forms["A"] == "uniform, zero_run" and forms.get("B") in ("sparse", None)
    toolkit.expand(tmp_path / "o.onnx", tmp_path / "e.onnx")
    feed = {"x": np.random.default_rng(5).standard_normal((5, 64)).astype(np.float32)}
    compressed = outputs(tmp_path / "o.onnx", feed, True)[0]
    np.testing.assert_array_equal(outputs(tmp_path / "e.onnx", feed, False)[0], compressed)


def test_files_for_a_gpu_have_many_blocks(tmp_path: Path) -> None:
    model = embedding(tmp_path / "m.onnx", rows=20_000)
    blocks, sizes, tables = {}, {}, {}
    for for_gpu in (False, True):
        path = tmp_path / f"{for_gpu}.onnx"
        report = toolkit.compress(model, path, bits=6, for_gpu=for_gpu)
        assert ("--for-gpu" in report.command) == for_gpu
        graph = onnx.load(path).graph
        blob = max((numpy_helper.to_array(t) for t in graph.initializer), key=lambda a: a.nbytes)
        blocks[for_gpu] = WideReader(blob).info.num_blocks
        sizes[for_gpu] = report.compressed_bytes
        tables[for_gpu] = outputs(path, {"ids": np.arange(300).reshape(3, 100)}, True)[0]
    assert blocks[True] >= 640_000 // 16_384 > 2 * blocks[False]
    assert sizes[True] < 1.05 * sizes[False]
    np.testing.assert_array_equal(tables[True], tables[False])
