# SPDX-License-Identifier: Apache-2.0
"""Inputs: made from signatures, or read and checked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from tests.toolkit_models import embedding
from toolkit.calibration import read_calibration
from toolkit.calibration_split import PIECE
from toolkit.errors import InputError
from toolkit.index_bounds import index_bounds
from toolkit.inputs import model_inputs, work_of_feed
from toolkit.made_up_inputs import MAX_FEEDS, Sizes, make_feed, resolve_shapes
from toolkit.pipeline import read_source
from toolkit.signature import InputSpec, model_signature

IDS = InputSpec("input_ids", "int64", ("batch", "sequence"))
MASK = InputSpec("attention_mask", "int64", ("batch", "sequence"))
IMAGE = InputSpec("image", "float", (None, 3, 32, 32))


def test_token_ids_stay_below_the_table_they_index(tmp_path: Path) -> None:
    bounds = index_bounds(ir.load(embedding(tmp_path / "m.onnx", rows=37)))
    assert bounds == {"ids": 37}
    feed = make_feed([InputSpec("ids", "int64", ("batch", "sequence"))], Sizes(), bounds, 0)
    assert feed["ids"].max() < 37
    assert feed["ids"].min() >= 0


def test_sizes_that_exporters_do_not_know_are_no_sizes() -> None:
    dims = [-1, 3, "?", "", "height", 0]
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, dims)
    graph = onnx.helper.make_graph([], "g", [value], [])
    model = ir.from_proto(onnx.helper.make_model(graph))
    (spec,) = model_signature(model)
    assert spec.shape == (None, 3, None, None, "height", 0)


def test_a_symbol_has_one_size_and_sums_add_up() -> None:
    past = InputSpec("past", "float", ("batch", 2, "past_length", 4))
    total = InputSpec("mask", "int64", ("batch", "past_length + sequence"))
    shapes = resolve_shapes([IDS, past, total], Sizes())
    assert shapes["mask"][1] == shapes["past"][2] + shapes["input_ids"][1]


def test_masks_are_ones_images_lie_in_0_1_and_feeds_repeat() -> None:
    first = make_feed([IDS, MASK, IMAGE], Sizes(), {}, 0)
    again = make_feed([IDS, MASK, IMAGE], Sizes(), {}, 0)
    other = make_feed([IDS, MASK, IMAGE], Sizes(), {}, 1)
    assert (first["attention_mask"] == 1).all()
    assert 0 <= first["image"].min() <= first["image"].max() <= 1
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not np.array_equal(first["image"], other["image"])


def test_other_sizes_are_tried_until_the_model_runs() -> None:
    def picky(feed):  # type: ignore[no-untyped-def]
        if feed["image"].shape[0] != 1:
            raise RuntimeError("batch must be 1")

    made = model_inputs([IMAGE], None, {}, picky)
    assert made.generated
    assert 2 <= len(made.feeds) <= MAX_FEEDS
    assert "no calibration data" in made.notes[0]


@pytest.mark.parametrize(
    ("macs", "feeds"), [(0, 16), (9 * 10**8, 16), (10**9, 8), (2 * 10**9, 4), (10**12, 4)]
)
def test_the_work_decides_how_many_feeds_are_made(macs: int, feeds: int) -> None:
    made = model_inputs([IMAGE], None, {}, lambda feed: None, work=lambda feed: macs)
    assert len(made.feeds) == feeds


def test_the_work_of_a_feed_follows_its_shape(tmp_path: Path) -> None:
    model = read_source(embedding(tmp_path / "m.onnx")).model
    assert work_of_feed(model, {"ids": np.zeros((3, 5), np.int64)}) == 15 * 32 * (32 + 40)
    assert work_of_feed(model, {"ids": np.zeros((1, 1), np.int64)}) == 32 * (32 + 40)


def test_a_model_that_never_runs_asks_for_calibration() -> None:
    def refuse(feed):  # type: ignore[no-untyped-def]
        raise RuntimeError("first\nsecond line")

    with pytest.raises(InputError, match="--calibration.*first second line"):
        model_inputs([IMAGE], None, {}, refuse)


def test_inputs_of_odd_types_ask_for_calibration() -> None:
    with pytest.raises(InputError, match="bfloat16"):
        model_inputs([InputSpec("x", "bfloat16", (2,))], None, {}, lambda feed: None)


def good(count: int = 2) -> dict[str, np.ndarray]:
    mask = np.ones((count, 5), bool)
    return {"input_ids": np.zeros((count, 5), np.int64), "attention_mask": mask}


def test_an_npz_is_read_and_widened(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", **good())
    [feed] = read_calibration(tmp_path / "a.npz", [IDS, MASK], 9)
    assert feed["attention_mask"].dtype == np.int64


def test_folders_hold_feeds_in_files_or_in_folders(tmp_path: Path) -> None:
    for index in range(3):
        np.savez(tmp_path / f"{index}.npz", **good(index + 1))
    (tmp_path / "more").mkdir()
    for name, array in good(4).items():
        np.save(tmp_path / "more" / f"{name}.npy", array)
    feeds = read_calibration(tmp_path, [IDS, MASK], 9)
    assert [len(feed["input_ids"]) for feed in feeds] == [1, 2, 3, 4]
    assert len(read_calibration(tmp_path, [IDS, MASK], 2)) == 2


def test_samples_stacked_for_a_model_of_batch_one_are_taken_apart(tmp_path: Path) -> None:
    spec = InputSpec("x", "float", (1, 4))
    np.save(tmp_path / "any.npy", np.arange(12, dtype=np.float64).reshape(3, 4))
    feeds = read_calibration(tmp_path / "any.npy", [spec], 9)
    assert [feed["x"].shape for feed in feeds] == [(1, 4)] * 3


def test_the_only_array_needs_no_name_but_no_wrong_one(tmp_path: Path) -> None:
    spec, array = InputSpec("x", "float", ("n", 4)), np.ones((2, 4), np.float32)
    np.savez(tmp_path / "a.npz", array)
    assert read_calibration(tmp_path / "a.npz", [spec], 9)[0]["x"].shape == (2, 4)
    np.savez(tmp_path / "b.npz", y=array)
    with pytest.raises(InputError, match=r"b\.npz: y is no input of the model"):
        read_calibration(tmp_path / "b.npz", [spec], 9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"attention_mask": None}, "has no array for the input attention_mask"),
        ({"extra": np.zeros(2)}, "extra is no input of the model"),
        ({"input_ids": np.zeros((2, 5, 1), np.int64)}, r"input_ids has shape \[2, 5, 1\]"),
        ({"input_ids": np.zeros((2, 5), np.float32)}, "input_ids has type float32"),
        ({"input_ids": np.zeros((2, 6), np.int64)}, "dimension sequence is 6 in input_ids and 5"),
    ],
)
def test_what_does_not_match_is_named(tmp_path: Path, change, message: str) -> None:  # type: ignore[no-untyped-def]
    arrays = {name: value for name, value in {**good(), **change}.items() if value is not None}
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(InputError, match=message) as found:
        read_calibration(tmp_path / "a.npz", [IDS, MASK], 9)
    assert "\n" not in str(found.value)
    assert "a.npz" in str(found.value)


def test_files_that_are_none_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.npz").write_bytes(b"nonsense")
    with pytest.raises(InputError, match=r"a\.npz: is no readable"):
        read_calibration(tmp_path / "a.npz", [IDS, MASK], 9)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"holds no \.npz"):
        read_calibration(tmp_path / "empty", [IDS], 9)
    with pytest.raises(InputError, match="no such calibration"):
        read_calibration(tmp_path / "missing", [IDS], 9)


def test_a_scalar_input_stays_one(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", flag=np.array(True), size=np.array(3.0, np.float16))
    specs = [InputSpec("flag", "bool", ()), InputSpec("size", "float", ())]
    [feed] = read_calibration(tmp_path / "x.npz", specs, 8)
    assert feed["flag"].shape == feed["size"].shape == ()
    assert feed["size"].dtype == np.float32


def test_the_model_is_first_run_on_few_samples_of_the_data(tmp_path: Path) -> None:
    np.savez(tmp_path / "data.npz", x=np.zeros((300, 4), np.float32))
    tried: list[int] = []
    specs = [InputSpec("x", "float", ("n", 4))]
    found = model_inputs(
        specs, tmp_path / "data.npz", {}, lambda feed: tried.append(len(feed["x"]))
    )
    assert tried == [PIECE]
    assert sum(len(feed["x"]) for feed in found.feeds) == 300
