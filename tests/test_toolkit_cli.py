# SPDX-License-Identifier: Apache-2.0
"""The command line: exit codes, one clear line per bad input, nothing half-written."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import numpy_helper

from tests.toolkit_models import embedding, mlp, without_weights
from toolkit.cli import Bytes, main


def run(*arguments: object):  # type: ignore[no-untyped-def]
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def refused(result, *parts: str) -> None:  # type: ignore[no-untyped-def]
    """Exit code 2 and one last line on stderr that names what is wrong."""
    lines = result.stderr.strip().splitlines()
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    for part in parts:
        assert part in lines[-1]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_help_names_every_command() -> None:
    result = run("--help")
    assert result.exit_code == 0
    for command in ("compress", "prune-channels", "expand", "inspect", "compare", "doctor"):
        assert command in result.output
        assert run(command, "--help").exit_code == 0


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom click.testing import CliRunner\nfrom toolkit.cli import main\n"
        "CliRunner().invoke(main, ['--help'])\n"
        "print([m for m in ('numpy', 'onnx', 'onnxruntime', 'torch', 'rich') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_compress_prints_and_writes(tmp_path: Path) -> None:
    result = run("compress", mlp(tmp_path / "m.onnx"))
    assert result.exit_code == 0, result.output
    assert "written:" in result.stdout
    assert names(tmp_path) == ["m.compressed.onnx", "m.onnx"]


def test_json_is_json(tmp_path: Path) -> None:
    model = mlp(tmp_path / "m.onnx")
    values = json.loads(run("compress", model, "--bits", 5, "--json").stdout)
    assert values["written"]
    small = tmp_path / "m.compressed.onnx"
    assert json.loads(run("inspect", small, "--json").stdout)["compressed"]
    assert json.loads(run("compare", model, small, "--json").stdout)["ratio"] > 2
    assert json.loads(run("expand", small, "--json").stdout)["num_weights"] >= 2
    assert isinstance(json.loads(run("doctor", "--json").stdout), list)


def test_tables_are_plain_in_a_pipe(tmp_path: Path) -> None:
    model = mlp(tmp_path / "m.onnx")
    assert "A\t64×96" in run("inspect", model).stdout
    assert "ratio: 1.00" in run("compare", model, model).stdout


def test_an_unreached_target_exits_with_1_and_writes(tmp_path: Path) -> None:
    model = mlp(tmp_path / "m.onnx")
    result = run("compress", model, "-o", tmp_path / "o.onnx", "--target-size", "600")
    assert result.exit_code == 1
    assert "NOT reached" in result.stdout
    assert (tmp_path / "o.onnx").exists()


@pytest.mark.parametrize("command", ["compress", "expand", "inspect"])
def test_files_that_are_no_models(tmp_path: Path, command: str) -> None:
    refused(run(command, tmp_path / "none.onnx"), "none.onnx")
    refused(run(command, tmp_path), tmp_path.name)
    (tmp_path / "text.onnx").write_text("hello, this is no model at all\n" * 20)
    refused(run(command, tmp_path / "text.onnx"), "text.onnx")
    (tmp_path / "empty.onnx").write_bytes(b"")
    refused(run(command, tmp_path / "empty.onnx"), "empty.onnx")
    whole = mlp(tmp_path / "m.onnx").read_bytes()
    for share in (0.3, 0.7, 0.999):
        (tmp_path / "cut.onnx").write_bytes(whole[: int(share * len(whole))])
        refused(run(command, tmp_path / "cut.onnx"), "cut.onnx")
    assert names(tmp_path) == ["cut.onnx", "empty.onnx", "m.onnx", "text.onnx"]


def test_missing_external_data(tmp_path: Path) -> None:
    model = onnx.load(str(mlp(tmp_path / "m.onnx")))
    onnx.save(
        model,
        str(tmp_path / "e.onnx"),
        save_as_external_data=True,
        location="e.bin",
        size_threshold=0,
    )
    (tmp_path / "e.bin").unlink()
    refused(run("compress", tmp_path / "e.onnx"), "e.onnx", "e.bin")
    assert names(tmp_path) == ["e.onnx", "m.onnx"]


def test_outputs_that_cannot_be_written(tmp_path: Path) -> None:
    model = mlp(tmp_path / "m.onnx")
    refused(run("compress", model, "-o", tmp_path / "no" / "o.onnx"), "o.onnx", "no folder")
    refused(run("compress", model, "-o", tmp_path), "is a folder")
    refused(run("compress", model, "-o", model), "is the input itself")
    refused(run("compress", model, "--report", tmp_path / "no" / "r.html"), "r.html")
    os.link(model, tmp_path / "same.onnx")
    refused(run("compress", model, "-o", tmp_path / "same.onnx"), "is the input itself")
    if os.geteuid() != 0:
        (tmp_path / "closed").mkdir(mode=0o500)
        refused(run("compress", model, "-o", tmp_path / "closed" / "o.onnx"), "read-only")


def test_compressed_already_and_not_compressed(tmp_path: Path) -> None:
    model = mlp(tmp_path / "m.onnx")
    assert run("compress", model, "--bits", 4).exit_code == 0
    small = tmp_path / "m.compressed.onnx"
    refused(run("compress", small), "m.compressed.onnx", "compressed already")
    refused(run("expand", model), "m.onnx", "not compressed")


def test_nothing_compressible(tmp_path: Path) -> None:
    refused(run("compress", without_weights(tmp_path / "m.onnx")), "nothing compressible")


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["--min-sqnr", "20", "--max-error", "0.1"], "one target"),
        (["--bits", "4", "--lossless"], "--bits"),
        (["--bits", "4", "--min-sqnr", "20"], "--bits"),
        (["--bits", "99"], "2 to 16"),
        (["--target-ratio", "0.5"], "--target-ratio"),
        (["--target-size", "99GB"], "would not be smaller"),
        (["--min-sqnr", "-3"], "--min-sqnr"),
        (["--min-sqnr", "nan"], "--min-sqnr"),
        (["--jobs", "0"], "--jobs"),
        (["--target-size", "12parsec"], "number of bytes"),
        (["--recipe", "missing.yaml"], "missing.yaml"),
        (["--calibration", "missing.npz"], "missing.npz"),
        (["--unknown"], "--unknown"),
    ],
)
def test_bad_options(tmp_path: Path, options: list[str], part: str) -> None:
    refused(run("compress", mlp(tmp_path / "m.onnx"), *options), part)
    assert names(tmp_path) == ["m.onnx"]


def test_calibration_that_does_not_match(tmp_path: Path) -> None:
    model = mlp(tmp_path / "m.onnx")
    np.savez(tmp_path / "c.npz", x=np.zeros((2, 63), np.float32))
    refused(run("compress", model, "--calibration", tmp_path / "c.npz"), "c.npz", "[2, 63]")
    ids = embedding(tmp_path / "e.onnx", rows=20)
    np.savez(tmp_path / "d.npz", ids=np.full((1, 3), 500))
    refused(run("compress", ids, "--calibration", tmp_path / "d.npz"), "d.npz", "does not run")


def test_comparing_models_of_other_inputs(tmp_path: Path) -> None:
    first, second = mlp(tmp_path / "m.onnx"), embedding(tmp_path / "e.onnx")
    refused(run("compare", first, second), "different inputs")


def test_nan_weights_are_named(tmp_path: Path) -> None:
    path = mlp(tmp_path / "m.onnx", width=600)
    model = onnx.load(str(path))
    values = numpy_helper.to_array(model.graph.initializer[0]).copy()
    values[3, 3] = np.inf
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(values, "A"))
    onnx.save(model, str(path))
    result = run("compress", path)
    assert "note: A: holds NaN or infinity, kept lossless" in result.stdout


def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    model = mlp(tmp_path / "m.onnx", width=600)

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    done = subprocess.run(
        [sys.executable, "-m", "toolkit", "compress", str(model), "--bits", "8"],
        capture_output=True,
        text=True,
        preexec_fn=limit,
        check=False,
    )
    assert done.returncode == 2, done.stderr
    assert "m.compressed.onnx: cannot be written" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert names(tmp_path) == ["m.onnx"]


def test_enospc_is_called_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    def full(source: object, target: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    model = mlp(tmp_path / "m.onnx")
    monkeypatch.setattr("toolkit.output_file.os.replace", full)
    refused(run("compress", model, "--bits", 4), "m.compressed.onnx", "disk is full")
    assert names(tmp_path) == ["m.onnx"]


@pytest.mark.parametrize("stage", ["search", "encode", "verify"])
def test_an_interrupt_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    from toolkit import console

    class Stop(console.Progress):
        def __call__(self, name: str, detail: str) -> None:
            if name == stage:
                raise KeyboardInterrupt

    monkeypatch.setattr(console, "Progress", Stop)
    result = run("compress", mlp(tmp_path / "m.onnx"))
    assert result.exit_code == 130
    assert "interrupted" in result.stderr
    assert names(tmp_path) == ["m.onnx"]


def test_a_bug_asks_to_be_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(path: object) -> None:
        raise AttributeError("no\nsuch thing")

    monkeypatch.setattr("toolkit.inspect_model.read_any", broken)
    result = run("inspect", mlp(tmp_path / "m.onnx"))
    assert result.exit_code == 70
    assert "please report" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert isinstance(run("--debug", "inspect", tmp_path / "m.onnx").exception, AttributeError)


@pytest.mark.parametrize(
    ("text", "expected"), [("14300000", 14_300_000), ("14.3MB", 14_300_000), ("2 KiB", 2048)]
)
def test_sizes_in_words(text: str, expected: int) -> None:
    assert Bytes().convert(text, None, None) == expected
