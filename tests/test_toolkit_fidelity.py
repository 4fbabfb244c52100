# SPDX-License-Identifier: Apache-2.0
"""Fidelity: what must be found, and what must not be mistaken for an error."""

from __future__ import annotations

import math

import numpy as np
import pytest

from toolkit.fidelity import compare_outputs
from toolkit.flat_outputs import blocks

RNG = np.random.default_rng(0)


def test_sqnr_is_signal_over_noise_in_decibel() -> None:
    before = RNG.standard_normal((4, 1000))
    found = compare_outputs([{"y": before}], [{"y": before * 1.1}])
    assert found.sqnr_db == pytest.approx(20.0, abs=1e-6)
    assert found.outputs[0].max_relative_error == pytest.approx(0.1, abs=1e-6)
    assert found.outputs[0].cosine == pytest.approx(1.0, abs=1e-9)
    assert found.outputs[0].top1_agreement == 1.0
    assert found.healthy


def test_a_dead_class_score_is_found_where_the_whole_output_looks_well() -> None:
    before = RNG.standard_normal((8, 85, 20))
    before[:, :4] *= 640
    after = before.copy()
    after[:, 17] = 0
    found = compare_outputs([{"boxes": before}], [{"boxes": after}])
    assert found.outputs[0].cosine > 0.9999
    assert found.sqnr_db > 50
    assert not found.healthy
    worst = found.worst_slice
    assert worst is not None
    assert (worst.axis, worst.index, worst.dead) == (1, 17, True)


def test_a_dead_slice_of_the_last_axis_is_found() -> None:
    before = RNG.standard_normal((2, 30, 12))
    after = before.copy()
    after[..., 7] = 0
    worst = compare_outputs([{"y": before}], [{"y": after}]).worst_slice
    assert worst is not None
    assert (worst.axis, worst.index) == (2, 7)


def test_unlikely_classes_of_a_softmax_carry_no_signal() -> None:
    before = np.full((8, 10), 1e-6)
    before[np.arange(8), np.arange(8)] = 1 - 9e-6
    after = before.copy()
    after[:, 9] = 3e-6
    assert compare_outputs([{"p": before}], [{"p": after}]).healthy


def test_equal_outputs_are_exact() -> None:
    run = {
        "zero": np.zeros((2, 3), np.float32),
        "label": np.arange(4),
        "text": np.array(["a"]),
        "list": [np.ones(2, np.float32)],
        "maps": [{0: 0.25, 1: 0.75}],
        "none": None,
    }
    found = compare_outputs([run], [run])
    assert found.exact
    assert found.healthy
    assert found.sqnr_db == math.inf


def test_signal_out_of_nothing_is_lost() -> None:
    found = compare_outputs([{"y": np.zeros((2, 3))}], [{"y": np.ones((2, 3))}])
    assert found.sqnr_db == -math.inf


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_new_non_finite_values_are_a_problem(bad: float) -> None:
    before = RNG.standard_normal((2, 3))
    after = before.copy()
    after[0, 0] = bad
    found = compare_outputs([{"y": before}], [{"y": after}])
    assert not found.healthy
    assert found.sqnr_db == -math.inf
    assert "y" in found.problems[0]


def test_the_same_non_finite_values_are_no_error() -> None:
    before = np.array([[np.nan, np.inf, 1.0], [-np.inf, 2.0, 3.0]])
    assert compare_outputs([{"y": before}], [{"y": before.copy()}]).exact


def test_other_shapes_and_missing_outputs_are_problems() -> None:
    before = {"a": np.ones((2, 3)), "b": np.ones(2)}
    found = compare_outputs([before], [{"a": np.ones((2, 4))}])
    assert len(found.problems) == 2
    assert not found.healthy


def test_integer_outputs_do_not_drive_beside_floats_but_must_not_collapse() -> None:
    before = {"score": RNG.standard_normal((4, 8)), "label": np.arange(100)}
    near = {"score": before["score"] * 1.001, "label": np.arange(100)}
    near["label"][0] = 7
    found = compare_outputs([before], [near])
    assert found.healthy
    assert found.sqnr_db == pytest.approx(60, abs=0.1)
    assert not compare_outputs([before], [{**near, "label": np.zeros(100, int) - 1}]).healthy


def test_integer_outputs_alone_are_judged_by_agreement() -> None:
    before, after = np.arange(100), np.arange(100)
    after[:10] = -1
    found = compare_outputs([{"label": before}], [{"label": after}])
    assert found.sqnr_db == pytest.approx(20.0)


def test_outputs_that_do_not_repeat_are_left_out() -> None:
    before = {"y": np.ones((2, 2)), "noise": RNG.standard_normal((2, 2))}
    after = {"y": np.ones((2, 2)), "noise": RNG.standard_normal((2, 2))}
    found = compare_outputs([before], [after], ignored=["noise"])
    assert found.sqnr_db == math.inf
    assert found.ignored == ["noise"]


def test_sequences_of_another_length_are_a_problem() -> None:
    found = compare_outputs([{"s": [np.ones(2), np.ones(2)]}], [{"s": [np.ones(2)]}])
    assert not found.healthy


SHAPES = [(), (7,), (0, 4), (5, 9), (3, 1, 8), (4, 6, 5), (2, 3, 4, 5), (1, 300, 2)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("size", [1, 7, 40, 10_000])
def test_blocks_cover_an_array_once_and_keep_its_rows_whole(
    shape: tuple[int, ...], size: int
) -> None:
    seen = np.zeros(shape, int)
    for place in blocks(shape, size):
        seen[place] += 1
        block = seen[place].shape
        assert len(shape) < 2 or block[-1] == shape[-1]
        row = math.prod(shape[2:]) if len(shape) > 2 else math.prod(shape[1:])
        assert math.prod(block) <= max(size, row)
    assert (seen == 1).all()


@pytest.mark.parametrize("shape", [s for s in SHAPES if len(s) > 1 and s[0]], ids=str)
def test_what_is_summed_up_in_blocks_is_what_the_whole_gives(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("toolkit.output_sums.blocks", lambda shape: blocks(shape, 7))
    runs = [RNG.standard_normal((2, *shape)).astype(np.float32) for _ in range(3)]
    (output,) = compare_outputs([{"y": a} for a, _ in runs], [{"y": b} for _, b in runs]).outputs
    a, b = (np.stack([run[part] for run in runs]).astype(np.float64) for part in range(2))
    square, noise = a**2, (b - a) ** 2
    assert output.sqnr_db == pytest.approx(10 * np.log10(square.sum() / noise.sum()))
    assert output.max_relative_error == pytest.approx(np.abs(b - a).max() / np.abs(a).max())
    assert output.cosine == pytest.approx((a * b).sum() / np.sqrt(square.sum() * (b**2).sum()))
    ratios = {
        (axis, index): 10
        * np.log10(square.take(index, 1 + axis).sum() / noise.take(index, 1 + axis).sum())
        for axis in {1, len(shape) - 1}
        if shape[axis] > 1
        for index in range(shape[axis])
    }
    assert output.dead_slices == sum(ratio < 3 for ratio in ratios.values())
    expected = sorted(ratios, key=lambda key: ratios[key])[:5]
    assert [(found.axis, found.index) for found in output.worst_slices] == expected
    if len(shape) < 4:
        assert output.top1_agreement == np.mean(a.argmax(-1) == b.argmax(-1))
