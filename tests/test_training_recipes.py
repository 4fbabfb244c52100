# SPDX-License-Identifier: Apache-2.0
"""The published results as recipes of `toolkit train`: each runs on made-up data, and says what its
Python recipe does."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="recipes train with torch")

from models import mnist_sources  # noqa: E402
from models.lenet300_lc import rules  # noqa: E402
from models.lenet_latents import attach_latents, latent_optimizer  # noqa: E402
from tests.train_tasks import digits_net  # noqa: E402
from toolkit.errors import InputError  # noqa: E402
from toolkit.nn import parametrizations, wrap  # noqa: E402
from toolkit.train import run_recipe  # noqa: E402
from toolkit.train.train_recipe import RecipeText  # noqa: E402

FOLDER = Path(mnist_sources.__file__).parent / "recipes"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
MADE_UP = {"model.options.made_up": True, "data.options.made_up": True}
SHORT = {  # epochs and what else counts them
    "deep_compression": {
        "epochs": 8,
        "methods.0.deep_compression.prune_starts": [1, 2, 3],
        "methods.0.deep_compression.codebook_start": 5,
        "data.options.batch_size": 64,
    },
    "lc": {"epochs": 4, "methods.0.lc.steps": 8, "methods.0.lc.growth": 2.0},
    "smallest": {
        "epochs": 4,
        "methods.0.entropy_penalty.warmup": 1,
        "data.options.batch_size": 64,
    },
    "entropy": {},
    "distillation": {"methods.1.distillation.teacher.options.made_up": True},
    "differentiable": {"methods.1.distillation.teacher.options.made_up": True},
}


@pytest.mark.parametrize("name", NAMES)
def test_a_published_result_runs_on_made_up_data(name: str, tmp_path: Path) -> None:
    (short,) = (changes for kind, changes in SHORT.items() if kind in name)
    report = run_recipe(
        FOLDER / f"{name}.yaml",
        tmp_path / "run",
        output=tmp_path / "small.onnx",
        changes=MADE_UP | short,
        progress=False,
    )
    least = {"bit": 28, "sum": 15, "keep": 12}.get(name.rpartition("_")[2], 5)
    # Some dozen steps of training in all are few for the network of CIFAR-10; by chance: 0.1.
    right = 0.2 if name.startswith("cifar10") else 0.7
    assert report.ratio > least and report.test_metric is not None and report.test_metric > right
    assert report.output_bytes == (tmp_path / "small.onnx").stat().st_size
    assert report.output_bytes < report.num_bytes + 3000


@pytest.mark.parametrize("name", ["lenet300", "lenet5"])
def test_latents_of_a_recipe_are_those_of_its_python_counterpart(name: str) -> None:
    from models import lenet5_smallest, lenet300_smallest

    recipe = RecipeText.read(FOLDER / f"{name}_smallest.yaml").recipe
    assert recipe.compress is not None and recipe.remove_dead_units
    ours, theirs = (mnist_sources.network(name) for _ in range(2))
    theirs.load_state_dict(ours.state_dict())
    wrap(ours, recipe.compress)
    counterpart = lenet300_smallest if name == "lenet300" else lenet5_smallest
    places = {"ip1": 16} if name == "lenet5" else None
    attach_latents(theirs, counterpart._STEPS, places)
    found = list(zip(parametrizations(ours), parametrizations(theirs), strict=True))
    assert len(found) == (6 if name == "lenet300" else 8)
    for (first, _, one), (second, _, other) in found:
        assert first == second
        assert one.bits._view == other.bits._view and one.decoder.units == other.decoder.units
    for key, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[key], value)
    assert recipe.optimizer.rate == pytest.approx(latent_optimizer().rate, rel=1e-4)
    assert recipe.optimizer.rate_factors == latent_optimizer().rate_factors


@pytest.mark.parametrize("kind", ["bit", "keep", "sum"])
def test_compressions_of_a_recipe_are_those_of_its_python_counterpart(kind: str) -> None:
    recipe = RecipeText.read(FOLDER / f"lenet300_lc_{kind}.yaml").recipe
    callback = recipe.methods[0].built(mnist_sources.network("lenet300"))
    (expected,) = rules(kind).values()
    for found in callback.rules.values():
        assert found.scheme == getattr(expected, "scheme", expected)
        assert found.joint == getattr(expected, "joint", ())


def test_a_network_to_start_from_has_a_name() -> None:
    with pytest.raises(ValueError, match="expected lenet300, lenet5 or one of"):
        mnist_sources.network("vgg")


def test_a_teacher_is_a_model_or_a_function_of_batches(tmp_path: Path) -> None:
    text = (FOLDER / "lenet300_smallest.yaml").read_text()
    recipe = RecipeText(text).with_values(
        {"methods.1.distillation.teacher": {"source": "models.mnist_sources:teacher"}}
    )
    told = recipe.methods[1].built(torch.nn.Linear(1, 1)).teacher
    batch = (torch.zeros(2, 1), torch.ones(2, 10), torch.zeros(2))
    assert torch.equal(told(batch), batch[1])
    weights = {"source": "models.mnist_sources:teacher", "weights": "some.safetensors"}
    recipe = RecipeText(text).with_values({"methods.1.distillation.teacher": weights})
    with pytest.raises(InputError, match="takes no weights"):
        recipe.methods[1].built(torch.nn.Linear(1, 1))


def not_a_chain() -> torch.nn.Module:
    return torch.nn.Sequential(digits_net(), torch.nn.Sigmoid())


def test_dead_units_are_taken_out_of_chains_only(tmp_path: Path) -> None:
    """Which is found before anything is trained."""
    text = RecipeText(
        'version: 1\nmodel: "tests.test_training_recipes:not_a_chain"\n'
        'data: "tests.train_tasks:digit_parts"\nremove_dead_units: true\n'
    )
    with pytest.raises(InputError, match="remove_dead_units: .* cannot lose units here"):
        run_recipe(text, tmp_path / "run", progress=False)
    assert not list((tmp_path / "run").iterdir())
