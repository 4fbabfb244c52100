# SPDX-License-Identifier: Apache-2.0
"""Scans: every weight under every scheme, and the recipe that follows."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from passes import Recipe
from tests import toolkit_models
from toolkit.compress_model import compress
from toolkit.errors import InputError
from toolkit.scan_model import ScanPoint, choose, scan, stages_text


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
