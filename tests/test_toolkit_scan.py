# SPDX-License-Identifier: Apache-2.0
"""Scans: every weight under every scheme, and the recipe that follows."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest

from passes import Recipe
from tests import toolkit_models
from toolkit.compress_model import compress
from toolkit.errors import InputError
from toolkit.scan_model import choose, scan
from toolkit.scan_points import ScanPoint, stages_text
from toolkit.scan_sparsity import DEFAULT_PRUNING, PruningLadder, divided
from toolkit.verify import decoded_weights


def point(weight: str, num_bytes: float, sqnr_db: float, **more: object) -> ScanPoint:
    scheme = f"{num_bytes:g}"
    return ScanPoint(weight, scheme, (scheme,), num_bytes, 20.0, sqnr_db, **more)  # type: ignore[arg-type]


def total_noise(points: list[ScanPoint]) -> float:
    return sum(10 ** (-p.sqnr_db / 10) for p in points)


def test_the_choice_lies_on_the_hull_of_all_choices() -> None:
    own = {
        "a": [point("a", 10, 12), point("a", 22, 18), point("a", 30, 30), point("a", 44, 36)],
        "b": [point("b", 100, 20), point("b", 160, 26), point("b", 200, 40)],
        "c": [point("c", 5, 8), point("c", 9, 26), point("c", 11, 33)],
    }
    sizes = dict.fromkeys(own, 1000)
    everything = [p for points in own.values() for p in points]
    for target in (10.0, 17.0, 22.0, 28.0):
        chosen, reached = choose(everything, sizes, target)
        taken = list(chosen.values())
        assert reached and total_noise(taken) <= 10 ** (-target / 10)
        spent = sum(p.num_bytes for p in taken)
        for other in itertools.product(*own.values()):
            if total_noise(list(other)) <= total_noise(taken):
                assert sum(p.num_bytes for p in other) >= spent


def test_what_cannot_be_used_is_not_chosen() -> None:
    points = [
        point("a", 10, 50, problem="no"),
        point("a", 11, 50, healthy=False),
        point("a", 999, 50),
        point("a", 20, 45),
        point("b", 60, 40),
    ]
    chosen, reached = choose(points, {"a": 100, "b": 50}, 30.0)
    assert reached
    assert {name: p.num_bytes for name, p in chosen.items()} == {"a": 20}
    chosen, reached = choose(points, {"a": 100, "b": 50}, 90.0)
    assert not reached and chosen["a"].num_bytes == 20


def test_a_scan_writes_a_recipe_that_keeps_what_it_predicts(tmp_path: Path) -> None:
    model = toolkit_models.mlp(tmp_path / "m.onnx")
    recipe, page = tmp_path / "r.yaml", tmp_path / "r.html"
    found = scan(model, min_sqnr=20.0, recipe=recipe, report=page)
    assert {p.weight for p in found.points} == {"A", "B"}
    assert found.predicted_sqnr_db >= 20.0
    assert Recipe.read(recipe).model_dump() == Recipe.parse(found.recipe_text()).model_dump()
    report = compress(model, tmp_path / "c.onnx", recipe=recipe)
    assert report.written and report.fidelity.sqnr_db > 18.0
    text = page.read_text(encoding="utf-8")
    assert "scan" in text and "http" not in text.replace("http://www.w3.org", "")


def test_mistakes_of_a_scan(tmp_path: Path) -> None:
    model = toolkit_models.mlp(tmp_path / "m.onnx")
    with pytest.raises(InputError, match="schemes: unknown scheme 'foo'"):
        scan(model, schemes=[("foo",)])
    with pytest.raises(InputError, match="no weight of 100000 or more elements"):
        scan(model, min_size=100_000)
    with pytest.raises(InputError, match="no such file"):
        scan(tmp_path / "absent.onnx")
    with pytest.raises(InputError, match="is the input itself"):
        scan(model, recipe=model)


def test_stages_in_words() -> None:
    stages = ({"prune": {"fraction": 0.5}}, "codebook", {"uniform": {"relative_step": 1.0}})
    assert stages_text(stages) == "prune (fraction 0.5) · codebook · uniform (relative step 1.0)"


def test_a_total_sparsity_goes_where_it_hurts_least() -> None:
    ladder = [0.0, 0.5, 0.9]
    points = [
        *zip(ladder, [point("a", 9, db) for db in (60, 40, 30)], strict=True),
        *zip(ladder, [point("b", 9, db) for db in (60, 20, 10)], strict=True),
        (0.95, point("a", 1, 99, problem="no")),
        (0.95, point("b", 1, -np.inf)),
    ]
    found = divided(points, {"a": 100, "b": 100}, 0.45)
    assert found == {"a": pytest.approx(0.9), "b": 0.0}
    with pytest.raises(InputError, match="the curves reach 0.9"):
        divided(points, {"a": 100, "b": 100}, 0.92)


def test_a_scan_writes_sparsities_that_reach_the_total(tmp_path: Path) -> None:
    model = toolkit_models.mlp(tmp_path / "m.onnx", width=128)
    recipe, page, small = tmp_path / "r.yaml", tmp_path / "r.html", tmp_path / "c.onnx"
    found = scan(model, sparsity=0.6, recipe=recipe, report=page)
    assert found.min_sqnr_db is None and len(found.points) == 2 * (1 + 8)
    rules = Recipe.read(recipe).rules
    shares = [rule.settings.stages[0]["prune"]["sparsity"] for rule in rules]  # type: ignore[index]
    assert shares[0] != shares[1]
    report = compress(model, small, recipe=recipe)
    assert report.written
    assert report.fidelity.sqnr_db == pytest.approx(found.predicted_sqnr_db, abs=2.0)
    zeros = {name: 1 - np.count_nonzero(v) / v.size for name, v in decoded_weights(small)}
    total = (64 * 128 * zeros["A"] + 128 * 16 * zeros["B"]) / (64 * 128 + 128 * 16)
    assert 0.6 <= total < 0.63  # 8 bits make a few more zeros
    even = tmp_path / "even.yaml"
    even.write_text(
        "version: 1\ndefault: {stages: [{prune: {sparsity: 0.6}}, {uniform: {bits: 8}}]}"
    )
    plain = compress(model, tmp_path / "e.onnx", recipe=even)
    assert report.fidelity.sqnr_db >= plain.fidelity.sqnr_db - 0.1
    assert "sparsity of 0.6" in page.read_text(encoding="utf-8")


def test_weights_that_cannot_be_pruned_so_stay_as_they_are(tmp_path: Path) -> None:
    model = toolkit_models.mlp(tmp_path / "m.onnx")
    kernels: list[tuple[object, ...]] = [
        ({"prune": {"sparsity": [0.5], "granularity": "kernel"}}, "codebook")
    ]
    found = scan(model, sparsity=0.0, schemes=kernels)
    assert not found.chosen and "A: stays as it is: prune: a weight of 2" in found.notes[-2]


def test_mistakes_of_a_total_sparsity(tmp_path: Path) -> None:
    model = toolkit_models.mlp(tmp_path / "m.onnx")
    for options, text in [
        ({"sparsity": 0.5, "min_sqnr": 20.0}, "give only one of them"),
        ({"sparsity": 1.5}, "expected a share from 0 to 1, found 1.5"),
        ({"sparsity": 0.5, "schemes": [("codebook",)]}, "a stage prune with a list of sparsities"),
        ({"sparsity": 0.5, "schemes": [DEFAULT_PRUNING] * 2}, "one list of stages, found 2"),
        ({"sparsity": 0.5, "schemes": [({"prune": {"sparsity": [2.0]}},)]}, "must be 0 to 1"),
        (
            {"sparsity": 0.9, "schemes": [({"prune": {"sparsity": [0.5]}},)]},
            "0.9 of all elements is asked for, the curves reach 0.5",
        ),
    ]:
        with pytest.raises(InputError, match=text):
            scan(model, recipe=tmp_path / "r.yaml", **options)  # type: ignore[arg-type]
    assert not (tmp_path / "r.yaml").exists()


def test_a_ladder_keeps_the_stages_around_the_pruning() -> None:
    stages = ({"prune": {"pattern": [2, 4]}}, {"prune": {"sparsity": [0.5], "importance": "l2"}})
    ladder = PruningLadder.of([stages])
    assert ladder.values == (0.0, 0.5)
    assert ladder.at(0.61234567) == (
        {"prune": {"pattern": [2, 4]}},
        {"prune": {"sparsity": 0.6124, "importance": "l2"}},
    )
