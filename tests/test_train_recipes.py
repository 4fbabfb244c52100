# SPDX-License-Identifier: Apache-2.0
"""Training recipes and their commands: what they make, exit codes, one line for each mistake."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner, Result

import runtime
from tests.train_tasks import digit_images, digits_net, digits_task
from toolkit.cli import main
from toolkit.train import Trainer, accuracy, run_recipe
from toolkit.train.checkpoint import write_checkpoint
from toolkit.train.train_recipe import RecipeText

ROOT = Path(__file__).resolve().parent.parent
HEAD = """\
version: 1
model: {source: "tests.train_tasks:digits_net", weights: WEIGHTS}
data: "tests.train_tasks:digit_parts"
batch_size: 50
optimizer: {rate: 0.05}
"""
METHODS = {
    "lc": """\
epochs: 4
methods:
  - lc:
      mu: 0.01
      growth: 1.5
      steps: 8
      rules:
        - role: weight
          settings:
            stages: [{prune: {fraction: 0.15}}, {uniform: {bits: 4}}]
            joint: [prune]
""",
    "deep_compression": """\
epochs: 4
methods:
  - deep_compression:
      prune_starts: [0, 1]
      codebook_start: 2
      rules:
        - match: "*.weight"
          settings: {stages: [{prune: {sparsity: [0.5, 0.8]}}, {codebook: {entries: 16}}]}
""",
    "entropy_penalty": """\
epochs: 4
methods:
  - entropy_penalty: {multiplier: 1.0e-4}
compress:
  version: 1
  rules: [{match: "*.weight", settings: {stages: [{latent: {relative_step: 0.5}}]}}]
""",
    "latent_pruning": """\
epochs: 6
methods:
  - entropy_penalty: {multiplier: 1.0e-6, warmup: 3}
  - latent_pruning: {end: 4, every: 10}
compress:
  version: 1
  rules: [{match: "*.weight", settings: {stages: [{latent: {relative_step: 0.5}}]}}]
""",
    "quantized_distillation": """\
epochs: 3
methods:
  - distillation: {teacher: {source: "tests.train_tasks:digits_net", weights: WEIGHTS}}
  - quantized_distillation:
      rules: [{match: "*.weight", settings: {bits: 4}}]
""",
    "differentiable_quantization": """\
epochs: 3
optimizer: {rate: 0.001}
methods:
  - differentiable_quantization: {points: {"*.weight": 8}}
""",
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained network."""
    net = digits_net()
    Trainer(net, digits_task(), epochs=8, optimizer={"rate": 0.1}, progress=False).fit()
    path = tmp_path_factory.mktemp("weights") / "start.safetensors"
    write_checkpoint(path, {"model": net.state_dict()})
    return path


def written(tmp_path: Path, weights: Path, body: str, head: str = HEAD) -> Path:
    if "optimizer" in body:
        head = head.replace("optimizer: {rate: 0.05}\n", "")
    path = tmp_path / "recipe.yaml"
    path.write_text((head + body).replace("WEIGHTS", json.dumps(str(weights))))
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def refused(result: Result, *parts: str) -> None:
    lines = result.stderr.splitlines()
    assert result.exit_code == 2, result.output
    assert len(lines) == 1, lines
    for part in parts:
        assert part in lines[0], lines[0]


def classes(path: Path, images: torch.Tensor) -> np.ndarray:
    session = runtime.InferenceSession(str(path))
    name = session.get_inputs()[0].name
    return np.asarray(session.run(None, {name: images.numpy()})[0])


@pytest.mark.parametrize("method", METHODS)
def test_every_method_ends_in_a_file_that_runs(method: str, tmp_path: Path, weights: Path) -> None:
    recipe, output = written(tmp_path, weights, METHODS[method]), tmp_path / "out.onnx"
    result = run("train", recipe, "--folder", tmp_path / "run", "-o", output, "--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["validation_metric"] > 0.85 and report["ratio"] > 3
    assert report["output_bytes"] == output.stat().st_size
    assert json.loads((tmp_path / "run" / "result.json").read_text()) == report
    images, labels = digit_images(300, 2)
    found = accuracy(torch.from_numpy(classes(output, images)), labels).mean()
    assert float(found) == pytest.approx(report["test_metric"], abs=0.0035)


def test_the_schema_of_training_recipes_is_printed() -> None:
    """It knows every key that a recipe may have, methods and the stages of their rules included."""
    result = run("train", "--schema")
    assert result.exit_code == 0, result.output
    schema = json.loads(result.stdout)
    parts = schema["$defs"]
    assert set(schema["required"]) == {"version", "model", "data"}
    beside_others = {"distillation", "batch_norm_statistics"}
    assert set(parts["MethodSpec"]["properties"]) == {*METHODS, *beside_others}
    assert {"type": "string"} in parts["Source"]["anyOf"]
    assert {"type": "string"} in schema["properties"]["compress"]["anyOf"]
    stages = parts["Stage"]["anyOf"]
    assert {"latent", "prune", "codebook"} <= set(stages[0]["enum"])
    assert "fraction" in stages[1]["properties"]["prune"]["properties"]
    for method in METHODS.values():
        keys = yaml.safe_load(HEAD + method)
        assert set(keys) <= set(schema["properties"])
        for one in keys["methods"]:
            ((name, options),) = one.items()
            reference = parts["MethodSpec"]["properties"][name]["anyOf"][0]["$ref"]
            assert set(options) <= set(parts[reference.rpartition("/")[2]]["properties"])
    for reference in set(re.findall(r'"#/\$defs/(\w+)"', result.stdout)):
        assert reference in parts


def test_the_command_prints_what_was_found(tmp_path: Path, weights: Path) -> None:
    recipe = written(tmp_path, weights, METHODS["deep_compression"])
    result = run("train", recipe, "--folder", tmp_path / "run", "--epochs", 3)
    assert result.exit_code == 0, result.output
    assert "times smaller" in result.stdout and "accuracy on test data" in result.stdout
    assert result.stderr.splitlines()[-1].startswith("epoch 3/3: loss")
    again = run("train", recipe, "--folder", tmp_path / "run", "--epochs", 3)
    refused(again, "holds a checkpoint of an earlier run")
    resumed = run("train", recipe, "--folder", tmp_path / "run", "--epochs", 3, "--resume")
    assert resumed.stdout == result.stdout


def test_a_target_of_size_steers_an_entropy_penalty(tmp_path: Path, weights: Path) -> None:
    body = METHODS["entropy_penalty"].replace("epochs: 4", "epochs: 12")
    body += "optimizer: {name: adam, rate: 0.005}\n"
    recipe = written(tmp_path, weights, body)
    options = ("--target-size", "600B", "--json", "--folder")
    result = run("train", recipe, *options, tmp_path / "run")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["num_bytes"] <= 600 and report["is_reached"]
    result = run("train", recipe, "--target-size", "20B", "--json", "--folder", tmp_path / "none")
    assert result.exit_code == 1 and not json.loads(result.stdout)["is_reached"]


def test_a_target_searches_any_number_of_the_recipe(tmp_path: Path, weights: Path) -> None:
    place = "methods.0.lc.rules.0.settings.stages.0.prune.fraction"
    body = METHODS["lc"].replace("epochs: 4", "epochs: 3").replace("bits: 4", "bits: 6") + (
        f"target: {{search: {place}, low: 0.02, high: 0.9, runs: 5, larger_is_smaller: false}}\n"
    )
    recipe, output = written(tmp_path, weights, body), tmp_path / "out.onnx"
    options = ("--max-drop", "0.05", "--json", "--folder", tmp_path / "run")
    result = run("train", recipe, *options, "-o", output)
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    net = digits_net()
    from toolkit.train.named_sources import load_weights

    load_weights(net, weights)
    baseline = digits_task().evaluate(net, digits_task().validation).metric
    assert report["validation_metric"] >= baseline - 0.05 - 1e-9
    good = [p for p in report["points"] if p["metric"] >= baseline - 0.05 - 1e-9]
    assert report["num_bytes"] == min(p["num_bytes"] for p in good)
    assert len(report["points"]) <= 5 and output.exists()
    refused(run("train", recipe, *options), "holds an earlier search")


def test_distill_adds_a_teacher(tmp_path: Path, weights: Path) -> None:
    recipe = written(tmp_path, weights, METHODS["lc"])
    teacher = ("--teacher", "tests.train_tasks:digits_net", "--teacher-weights", weights)
    result = run("distill", recipe, *teacher, "--folder", tmp_path / "run", "--json")
    assert result.exit_code == 0, result.output
    log = (tmp_path / "run" / "log.csv").read_text().splitlines()[0]
    assert "loss.distillation" in log.split(",") and "mu" in log.split(",")
    wrong = run("distill", recipe, *teacher, "--ask", "never", "--folder", tmp_path / "x")
    refused(wrong, "methods.1.distillation.ask")


@pytest.mark.parametrize(
    ("body", "parts"),
    [
        ("epochs: many\n", ("recipe.yaml:6", "epochs")),
        ("epochs: 3\nepoch: 3\n", ("recipe.yaml:7", "epoch", "unknown key")),
        ("optimizer:\n  rate: 0.1\n  speed: 3\n", ("recipe.yaml:7", "unknown key", "rate")),
        ("methods: [{magic: {}}]\n", ("recipe.yaml:6", "unknown key", "entropy_penalty")),
        ("methods:\n  - lc:\n      mu: 1\n", ("recipe.yaml:7", "lc.rules: is missing")),
        (
            "methods:\n  - lc:\n      rules:\n        - settings: {bits: 99}\n",
            ("recipe.yaml:9", "bits"),
        ),
        (
            "methods:\n  - lc:\n      rules:\n        - {match: conv*, settings: {bits: 4}}\n",
            ("lc: ", "matches no weight", "conv*"),
        ),
        ("target: {size: 5, max_drop: 1}\n", ("recipe.yaml:6", "one of size and max_drop")),
        ("target: {size: 500}\n", ("target", "search")),
        (
            METHODS["lc"] + "target: {size: 500, search: methods.7.lc.mu, low: 1, high: 2}\n",
            ("no place 'methods.7.lc.mu'",),
        ),
        ("compress: nonsense\n", ("recipe.yaml:6", "no ready recipe 'nonsense'")),
        ("device: abacus\n", ("device", "abacus")),
        ("epochs: 1\nepochs: 2\n", ("recipe.yaml:7", "given twice")),
        ("a: [\n", ("recipe.yaml", "not YAML")),
    ],
)
def test_mistakes_are_one_line(
    body: str, parts: tuple[str, ...], tmp_path: Path, weights: Path
) -> None:
    recipe = written(tmp_path, weights, body)
    refused(run("train", recipe, "--folder", tmp_path / "run"), *parts)


@pytest.mark.parametrize(
    ("old", "new", "parts"),
    [
        ("tests.train_tasks:digits_net", "tests.train_tasks:nothing", ("model", "nothing")),
        ("tests.train_tasks:digits_net", "tests.train_tasks:digit_parts", ("no torch module",)),
        ("tests.train_tasks:digit_parts", "absent:data", ("data absent:data", "cannot be")),
        ("tests.train_tasks:digit_parts", "tests.train_tasks:digits_net", ("no train set",)),
        ("tests.train_tasks:digit_parts", "digits", ("recipe.yaml:3", "module:function")),
        (
            "tests.train_tasks:digit_parts",
            "tests.train_tasks:wide_parts",
            ("data: the first batch",),
        ),
        ("WEIGHTS", "nowhere.safetensors", ("nowhere.safetensors", "no such file")),
        ("version: 1", "version: 2", ("recipe.yaml:1", "version")),
        ("version: 1\n", "", ("version: is missing",)),
    ],
)
def test_what_a_recipe_names_is_missing(
    old: str, new: str, parts: tuple[str, ...], tmp_path: Path, weights: Path
) -> None:
    recipe = written(tmp_path, weights, "epochs: 1\n", HEAD.replace(old, new))
    refused(run("train", recipe, "--folder", tmp_path / "run"), *parts)


def test_a_run_that_diverges_ends_with_2(tmp_path: Path, weights: Path) -> None:
    recipe = written(tmp_path, weights, "epochs: 2\noptimizer: {rate: 100000.0}\n")
    result = run("train", recipe, "--folder", tmp_path / "run", "--json")
    refused(result, "training: at step")


def test_a_missing_recipe_and_two_targets(tmp_path: Path, weights: Path) -> None:
    refused(run("train", tmp_path / "absent.yaml"), "absent.yaml", "cannot read")
    recipe = written(tmp_path, weights, METHODS["lc"])
    both = run("train", recipe, "--target-size", 5, "--max-drop", 1, "--folder", tmp_path / "r")
    refused(both, "one target only")
    folder = run("train", recipe, "-o", tmp_path / "no" / "x.onnx", "--folder", tmp_path / "r")
    refused(folder, "there is no folder")
    assert not (tmp_path / "r").exists()


def test_an_interrupted_command_resumes(tmp_path: Path, weights: Path) -> None:
    recipe = written(tmp_path, weights, METHODS["lc"] + "checkpoint_every: 5\n")
    expected = run_recipe(recipe, tmp_path / "whole", progress=False)
    code = (
        "import sys\nfrom toolkit.train import Trainer\nstep = Trainer._run_step\n"
        "def stopping(self, *given):\n"
        "    if self.step == 33: raise KeyboardInterrupt\n"
        "    return step(self, *given)\n"
        "Trainer._run_step = stopping\nfrom toolkit.cli import entry\nentry()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "train", str(recipe), "--folder", str(tmp_path / "run")],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 130, done.stderr
    found = run_recipe(recipe, tmp_path / "run", resume=True, progress=False)
    first, second = (r.as_dict() | {"folder": ""} for r in (expected, found))
    assert first == second


def test_from_python_in_a_few_lines(tmp_path: Path, weights: Path) -> None:
    text = written(tmp_path, weights, METHODS["deep_compression"]).read_text()
    report = run_recipe(RecipeText(text), tmp_path / "run", changes={"epochs": 3}, progress=False)
    assert report.metric_name == "accuracy" and report.ratio > 5


def test_importing_the_toolkit_needs_no_torch() -> None:
    code = "import sys, toolkit, toolkit.cli; print('torch' in sys.modules, toolkit.train.Trainer)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT
    )
    values: Any = done.stdout.split(" ", 1)
    assert values[0] == "False" and "Trainer" in values[1]
