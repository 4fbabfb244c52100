# SPDX-License-Identifier: Apache-2.0
"""`compress` with real inputs: compensated rounding, data kept apart, metrics of the user."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import toolkit
from passes.schemes import MatrixLayout, Moments, RowUse
from passes.schemes.trellis import TrellisParameters
from tests.toolkit_models import embedding, mlp, save
from toolkit.calibration_split import split_calibration
from toolkit.choose_settings import _needs_moments, weak_moments
from toolkit.errors import InputError
from toolkit.fitting import CalibratedFitting
from toolkit.metrics import parse_drop
from toolkit.moment_store import moments_of
from toolkit.padding import without_padding
from toolkit.pipeline import fit_all, read_source
from toolkit.signature import InputSpec
from toolkit.targets import Target, choose_target

MIXING = np.random.default_rng(7).standard_normal((6, 64))


def inputs(count: int, seed: int) -> np.ndarray:
    """Rows in which 64 features hang together."""
    rng = np.random.default_rng(seed)
    mixed = rng.standard_normal((count, 6)) @ MIXING + 0.1 * rng.standard_normal((count, 64))
    return mixed.astype(np.float32)


@pytest.fixture
def calibration(tmp_path: Path) -> Path:
    np.savez(tmp_path / "calibration.npz", x=inputs(400, 1))
    return tmp_path / "calibration.npz"


def test_compensation_makes_the_file_smaller(tmp_path: Path, calibration: Path) -> None:
    model = mlp(tmp_path / "m.onnx", width=192)
    plain = toolkit.compress(model, tmp_path / "p.onnx", min_sqnr=25)
    fitted = toolkit.compress(model, tmp_path / "f.onnx", min_sqnr=25, calibration=calibration)
    assert fitted.reached and fitted.fidelity.sqnr_db >= 25
    assert fitted.compressed_bytes < 0.8 * plain.compressed_bytes
    [split] = [note for note in fitted.notes if note.startswith("fitted to")]
    assert split == (
        "fitted to 304 samples of the calibration data, measured on 48 others, "
        "48 more have the last word"
    )
    [figures] = [note for note in fitted.notes if note.startswith("output SQNR: ")]
    assert "dB on data that was fitted to" in figures and "that was searched on" in figures
    assert figures.endswith(f"{fitted.fidelity.sqnr_db:.2f} dB on data kept apart from it")


def test_a_size_with_calibration(tmp_path: Path, calibration: Path) -> None:
    model = mlp(tmp_path / "m.onnx", width=192)
    report = toolkit.compress(model, tmp_path / "o.onnx", target_size=9000, calibration=calibration)
    assert report.reached
    assert 8000 < (tmp_path / "o.onnx").stat().st_size <= 9000


def test_rows_that_no_sample_reads_are_said(tmp_path: Path) -> None:
    use = RowUse(np.array([3.0, 0, 0, 8]))
    assert weak_moments({"W": use, "V": RowUse(np.ones(4))}) == [
        "W: 2 of 4 rows are read by no sample: rounded more coarsely than the others"
    ]
    model = embedding(tmp_path / "m.onnx", rows=500)
    np.savez(tmp_path / "ids.npz", ids=np.arange(400).reshape(40, 10))
    report = toolkit.compress(model, min_sqnr=20, calibration=tmp_path / "ids.npz")
    assert any("of 500 rows are read by no sample" in note for note in report.notes)


@pytest.mark.parametrize("options", [{}, {"min_agreement": 0.9}, {"max_drop": 0.1}])
def test_inputs_that_show_nothing_ruin_no_weight(tmp_path: Path, options: dict[str, float]) -> None:
    model = mlp(tmp_path / "m.onnx", scale=0.1)
    np.savez(tmp_path / "zero.npz", x=np.zeros((64, 64), np.float32))
    given = {"metric": "cosine", **options} if "max_drop" in options else options
    report = toolkit.compress(
        without_biases(model), tmp_path / "o.onnx", calibration=tmp_path / "zero.npz", **given
    )
    assert any("outputs do not depend on the weights" in note for note in report.notes)
    [row] = [row for row in report.tensors if row.name == "A"]
    assert row.weight_sqnr_db is not None and row.weight_sqnr_db > 25


def test_winners_that_stay_are_no_sign_of_outputs_without_weights(tmp_path: Path) -> None:
    """A model that gives out the winner alone: on few samples none changes at coarse steps."""
    model = onnx.load(mlp(tmp_path / "m.onnx"))
    model.graph.node.append(helper.make_node("ArgMax", ["y"], ["winner"], axis=-1, keepdims=0))
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("winner", TensorProto.INT64, None))
    onnx.save(model, tmp_path / "m.onnx")
    np.savez(tmp_path / "few.npz", x=inputs(24, 3))
    report = toolkit.compress(
        tmp_path / "m.onnx", tmp_path / "o.onnx", calibration=tmp_path / "few.npz"
    )
    assert report.fidelity.exact and report.reached
    assert not any("do not depend on the weights" in note for note in report.notes)
    [row] = [row for row in report.tensors if row.name == "A"]
    assert row.weight_sqnr_db is not None and row.weight_sqnr_db < 25


def without_biases(path: Path) -> Path:
    """The model without its biases, so that zeros give zeros."""
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        if len(tensor.dims) == 1:
            tensor.CopyFrom(numpy_helper.from_array(np.zeros(tensor.dims, np.float32), tensor.name))
    onnx.save(model, path)
    return path


def test_a_table_with_calibration(tmp_path: Path) -> None:
    model = embedding(tmp_path / "m.onnx", rows=500)
    ids = np.random.default_rng(1).zipf(1.5, (40, 20)) % 500
    np.savez(tmp_path / "ids.npz", ids=ids.astype(np.int64))
    report = toolkit.compress(model, min_sqnr=20, calibration=tmp_path / "ids.npz")
    plain = toolkit.compress(model, tmp_path / "p.onnx", min_sqnr=20)
    assert report.reached
    assert report.compressed_bytes < 0.85 * plain.compressed_bytes


def test_a_recipe_uses_the_calibration(tmp_path: Path, calibration: Path) -> None:
    (tmp_path / "r.yaml").write_text(
        "version: 1\ndefault: {stages: [{compensated: {relative_step: 1.0}}]}\n"
    )
    model = mlp(tmp_path / "m.onnx", width=192)
    options = {"recipe": tmp_path / "r.yaml"}
    blind = toolkit.compress(model, tmp_path / "b.onnx", **options)  # type: ignore[arg-type]
    fitted = toolkit.compress(
        model, tmp_path / "f.onnx", calibration=calibration, recipe=tmp_path / "r.yaml"
    )
    assert any("A: nothing known of its inputs" in note for note in blind.notes)
    assert not any("nothing known" in note for note in fitted.notes)
    other = toolkit.compare(model, tmp_path / "b.onnx", calibration=calibration)
    assert fitted.fidelity.sqnr_db > other.fidelity.sqnr_db + 3


METRIC = """
import numpy as np
X = np.random.default_rng(7).standard_normal((64, 64)).astype(np.float32)
first = []
def score(run):
    y = run({"x": X})["y"]
    first[:] = first or [y]
    return 10.0 - float(np.abs(y - first[0]).mean())
def nan(run):
    return float("nan")
def broken(run):
    return run({"x": X})["absent"]
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "user_metric.py").write_text(METRIC)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "user_metric", raising=False)
    return "user_metric"


@pytest.mark.parametrize("drop", ["0.05", "0.5%"])
@pytest.mark.parametrize("calibrated", [False, True])
def test_the_metric_of_the_user_drops_no_further(
    tmp_path: Path, module: str, calibration: Path, drop: str, calibrated: bool
) -> None:
    report = toolkit.compress(
        mlp(tmp_path / "m.onnx", width=192),
        metric=f"{module}:score",
        max_drop=drop,
        calibration=calibration if calibrated else None,
    )
    assert report.reached and report.fidelity.score is not None
    assert 9.95 <= report.fidelity.score < 9.99
    assert "metric of at least 9.95" in report.target
    assert f"--metric {module}:score" in report.command and "--max-drop" in report.command


@pytest.mark.parametrize(
    ("name", "message"),
    [("nan", "returned nan"), ("broken", "failed .KeyError|failed .*absent"), ("no", "imported")],
)
def test_metrics_that_do_not_work_are_named(
    tmp_path: Path, module: str, name: str, message: str
) -> None:
    with pytest.raises(InputError, match=message) as found:
        toolkit.compress(mlp(tmp_path / "m.onnx"), metric=f"{module}:{name}", max_drop=0.1)
    assert f"--metric {module}:{name}" in str(found.value)


def test_agreement_of_the_winners(tmp_path: Path, calibration: Path) -> None:
    report = toolkit.compress(mlp(tmp_path / "m.onnx"), min_agreement=0.9, calibration=calibration)
    assert report.reached
    assert report.fidelity.top1_agreement is not None
    assert report.fidelity.top1_agreement >= 0.9
    assert report.compressed_bytes < 6000


@pytest.mark.parametrize("given", ["zero", "0", "-1%", "nan"])
def test_drops_are_checked(given: str) -> None:
    with pytest.raises(InputError, match="--max-drop"):
        parse_drop(given)


def test_targets_of_metrics() -> None:
    assert parse_drop("0.5%") == (0.005, True)
    assert parse_drop(0.25) == (0.25, False)
    target = choose_target(1, min_sqnr=None, max_error=None, target_ratio=None, target_size=None,
                           fixed=False, max_drop="10%")  # fmt: skip
    assert target.with_baseline(50.0) == Target("max_drop", 5.0, baseline=50.0)
    for options in ({"min_agreement": 1.5}, {"min_agreement": 0.5, "max_drop": 1}):
        with pytest.raises(InputError):
            choose_target(1, min_sqnr=None, max_error=None, target_ratio=None, target_size=None,
                          fixed=False, **options)  # type: ignore[arg-type]  # fmt: skip
    with pytest.raises(InputError, match="--metric"):
        toolkit.compress("m.onnx", max_drop=1)


def test_calibration_is_divided() -> None:
    spec = [InputSpec("x", "float", ("n", 2))]
    feed = {"x": np.arange(80.0).reshape(40, 2)}
    split = split_calibration([feed], spec, dict)
    parts = [np.concatenate([f["x"] for f in split.of(part)]) for part in range(3)]
    assert [len(part) for part in parts] == [32, 4, 4]
    assert len(set(np.concatenate(parts).ravel())) == 80
    two = split_calibration([feed, feed], [InputSpec("x", "float", (40, 2))], dict)
    assert (len(two.fitted), len(two.apart)) == (1, 1)
    one = split_calibration([feed], [InputSpec("x", "float", (40, 2))], dict)
    assert one.fitted[0] is one.apart[0] is one.checked[0] and "one sample" in one.note
    assert two.apart[0] is two.checked[0] and "too few" in two.note


def test_padding_is_not_looked_at() -> None:
    mask = np.array([[1, 1, 0], [1, 0, 0]])
    runs = [{"y": np.ones((2, 3, 4), np.float32), "other": np.ones(5, np.float32)}]
    [found] = without_padding(runs, [{"attention_mask": mask, "ids": mask}])
    np.testing.assert_array_equal(found["y"][:, :, 0], mask)
    assert found["other"] is runs[0]["other"]
    [kept] = without_padding(runs, [{"ids": mask}])
    assert kept["y"] is runs[0]["y"]


def test_fits_are_kept_and_repeat(tmp_path: Path) -> None:
    source = read_source(mlp(tmp_path / "m.onnx"))
    store = moments_of(source, [{"x": inputs(50, 1)}], ["A", "B"], 1, kept_in=tmp_path / "k")
    fitting = CalibratedFitting(source.weights, store, 2)
    arrays = {name: weight.array() for name, weight in source.weights.items()}
    steps = {"A": 0.1, "B": 0.2, "a": 0.01}
    first = fitting.values(arrays, steps, draft=False)
    kept = fitting.kept("A", 0.1)
    assert kept is not None
    np.testing.assert_array_equal(kept.decode(), first["A"])
    assert fitting.kept("A", 0.3) is None and fitting.kept("a", 0.02) is None
    from passes.fit_weight import fit_weight

    again = fit_weight(arrays["A"], fitting.settings("A", 0.1), 1, moments=store["A"])
    assert again is not None
    np.testing.assert_array_equal(again.decode(), first["A"])


def test_stages_that_need_moments() -> None:
    assert _needs_moments(({"prune": {"fraction": 0.5}}, "compensated"))
    assert _needs_moments(({"sum": {"parts": [["trellis"], [{"rate_distortion": {}}]]}},))
    assert not _needs_moments(({"uniform": {"bits": 4}},))


@pytest.mark.parametrize("calibrated", [False, True])
def test_a_weight_that_cannot_bear_it_stays_as_it_is(tmp_path: Path, calibrated: bool) -> None:
    """Logarithms of sums whose weights are of very different sizes."""
    rng = np.random.default_rng(3)
    fragile = rng.uniform(0.5, 1.5, (64, 48))
    fragile[:, :-1] *= 1e-6
    nodes = [
        helper.make_node("Abs", ["x"], ["p"]),
        helper.make_node("MatMul", ["p", "F"], ["s"]),
        helper.make_node("Log", ["s"], ["l"]),
        helper.make_node("MatMul", ["l", "V"], ["y"]),
    ]
    model = save(
        tmp_path / "m.onnx",
        nodes,
        {"F": fragile, "V": rng.standard_normal((48, 200))},
        [("x", TensorProto.FLOAT, ["batch", 64])],
        [("y", TensorProto.FLOAT, ["batch", 200])],
    )
    np.savez(tmp_path / "x.npz", x=rng.standard_normal((64, 64)).astype(np.float32))
    report = toolkit.compress(
        model, min_sqnr=30, calibration=tmp_path / "x.npz" if calibrated else None
    )
    assert report.reached and report.written
    assert "F: cannot bear quantisation, kept lossless" in report.notes
    forms = {row.name: row.scheme for row in report.tensors}
    assert "lossless" in forms["F"] and "lossless" not in forms["V"]


def test_singular_moments_are_said(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    x = rng.standard_normal((24, 64)).astype(np.float32)
    np.savez(tmp_path / "few.npz", x=x)
    model = mlp(tmp_path / "m.onnx")
    report = toolkit.compress(model, min_sqnr=5, calibration=tmp_path / "few.npz")
    [note] = [note for note in report.notes if "second moments are singular" in note]
    assert note.startswith("A (18 rows, 64 features) and 1 more weights: ")
    assert report.written
    layout = MatrixLayout((0, 1), (4, 3), (), (0,), (1,))
    nothing = Moments(np.zeros((1, 4, 4)), np.zeros((1, 4)), 9.0, layout)
    assert weak_moments({"W": nothing}) == [
        "W: its inputs are all zero: rounded without compensation"
    ]


def test_a_trellis_is_taken_where_it_pays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of wide layers dependent quantisation takes fewer bytes; the search sees that by itself."""
    model = mlp(tmp_path / "m.onnx", width=1024)
    data = tmp_path / "white.npz"
    np.savez(data, x=np.random.default_rng(5).standard_normal((400, 64), np.float32))
    tried: list[str] = []
    monkeypatch.setattr("toolkit.fitting_options.OTHER_OPTIONS", ({"trellis": True},))
    found = toolkit.compress(
        model,
        tmp_path / "t.onnx",
        min_sqnr=20,
        calibration=data,
        progress=lambda stage, detail: tried.append(detail),
    )
    assert any("trellis True: +" in text for text in tried), tried
    monkeypatch.setattr("toolkit.fitting_options.OTHER_OPTIONS", ())
    without = toolkit.compress(model, tmp_path / "p.onnx", min_sqnr=20, calibration=data)
    assert found.reached and without.reached
    assert found.compressed_bytes < 0.98 * without.compressed_bytes


def test_options_that_cannot_be_fitted_are_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[str] = []
    monkeypatch.setattr("toolkit.fitting_options.OTHER_OPTIONS", ({"damping": 2.0},))
    data = tmp_path / "x.npz"
    np.savez(data, x=inputs(400, 3))
    report = toolkit.compress(
        mlp(tmp_path / "m.onnx", width=64),
        tmp_path / "o.onnx",
        min_sqnr=20,
        calibration=data,
        progress=lambda stage, detail: tried.append(detail),
    )
    assert report.reached
    assert any(text.startswith("damping 2.0: not possible") for text in tried), tried


def test_the_fitting_by_trellis_is_what_its_settings_say(tmp_path: Path) -> None:
    model = mlp(tmp_path / "m.onnx", width=128)
    source = read_source(model)
    feeds = [{"x": inputs(50, 1)}]
    moments = moments_of(source, feeds, ["A", "B"], kept_in=tmp_path)
    fitting = CalibratedFitting(source.weights, moments, 2).with_options({"trellis": True})
    arrays = {name: source.weights[name].array() for name in ("A", "B")}
    values = fitting.values(arrays, {"A": 0.05, "B": 0.05}, draft=False)
    assert isinstance(fitting.kept("A", 0.05), TrellisParameters)
    settings = {name: fitting.settings(name, 0.05) for name in arrays}
    fitted = fit_all(source, settings, [], moments)
    for name, parameters in fitted.items():
        np.testing.assert_array_equal(parameters.decode(), values[name])


def test_external_data_is_found_from_any_folder(
    tmp_path: Path, calibration: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also that of small weights and of those that nothing is sought for."""
    import onnx

    model = mlp(tmp_path / "m.onnx", width=192)
    stored = tmp_path / "stored" / "m.onnx"
    stored.parent.mkdir()
    onnx.save(
        onnx.load(model), stored, save_as_external_data=True, location="m.bin", size_threshold=0
    )
    monkeypatch.chdir(tmp_path)
    same = toolkit.compress(model, tmp_path / "a.onnx", min_sqnr=25, calibration=calibration)
    found = toolkit.compress(stored, tmp_path / "b.onnx", min_sqnr=25, calibration=calibration)
    assert found.reached and found.compressed_bytes == same.compressed_bytes


def test_more_damping_is_taken_where_samples_are_few(tmp_path: Path) -> None:
    """72 samples tell little of some directions of 64 features: what is made up for on them is not
    on others, and the trial on data kept apart sees it."""
    model = mlp(tmp_path / "m.onnx", width=256)
    x = np.random.default_rng(5).standard_normal((96, 64)).astype(np.float32)
    np.savez(tmp_path / "x.npz", x=x)
    tried: list[str] = []
    report = toolkit.compress(
        model,
        tmp_path / "o.onnx",
        min_sqnr=25,
        calibration=tmp_path / "x.npz",
        progress=lambda stage, detail: tried.append(detail),
    )
    assert report.reached
    [trial] = [text for text in tried if text.startswith("damping")]
    assert trial.startswith("damping 1.0: +")
