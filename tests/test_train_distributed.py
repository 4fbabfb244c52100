# SPDX-License-Identifier: Apache-2.0
"""Two processes by torchrun train what one process trains, within round-off."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.train_two_processes import latent_trainer, trainer
from toolkit.errors import InputError
from toolkit.train.checkpoint import read_checkpoint

ROOT = Path(__file__).resolve().parent.parent


def in_two_processes(folder: Path, *options: str) -> None:
    run = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone"]
    done = subprocess.run(
        [*run, "-m", "tests.train_two_processes", str(folder), *options],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr


def test_two_processes_equal_one(tmp_path: Path) -> None:
    trainer(str(tmp_path / "one")).fit()
    in_two_processes(tmp_path / "two")
    one, two = (read_checkpoint(tmp_path / name / "last.safetensors") for name in ("one", "two"))
    assert two["processes"] == 2 and len(two["random"]) == 2
    assert two["random"][0]["torch"] != two["random"][1]["torch"]
    assert one["place"] == two["place"] == [93, 3, 0]
    for first, second in zip(one["history"], two["history"], strict=True):
        for name, value in first.items():
            assert second[name] == pytest.approx(value, rel=1e-4), name
    for name, tensor in one["model"].items():
        np.testing.assert_allclose(two["model"][name].numpy(), tensor.numpy(), atol=2e-5)
    with pytest.raises(InputError, match="a run of 2 processes, expected 1"):
        trainer(str(tmp_path / "two")).fit(resume=True)


def test_state_in_buffers_is_shared(tmp_path: Path) -> None:
    """Rounding is no continuous function, so that round-off can move a symbol: the runs are near,
    and the processes agree with each other, or their gradients would not fit together."""
    latent_trainer(str(tmp_path / "one")).fit()
    in_two_processes(tmp_path / "two", "--latent")
    one, two = (read_checkpoint(tmp_path / name / "last.safetensors") for name in ("one", "two"))
    for first, second in zip(one["history"], two["history"], strict=True):
        assert second["loss.task"] == pytest.approx(first["loss.task"], rel=0.1)
        assert second["bits"] == pytest.approx(first["bits"], rel=0.05)
