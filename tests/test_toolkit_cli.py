# SPDX-License-Identifier: Apache-2.0
"""The command line: exit codes, one clear line per bad input, nothing half-written."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from onnx import numpy_helper

from tests.toolkit_models import embedding, mlp, without_weights
from toolkit.cli import main
from toolkit.commands.options import Bytes
from toolkit.console import STAGES
from toolkit.versions import DISTRIBUTION


def run(*arguments: object):  # type: ignore[no-untyped-def]
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def refused(result, *parts: str) -> None:  # type: ignore[no-untyped-def]
    """Exit code 2 and, beside the stages of the work, one line on stderr that names what is
    wrong."""
    lines = [line for line in result.stderr.splitlines() if line not in STAGES.values()]
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    assert len(lines) == 1, lines
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


def test_version_is_the_installed_ones() -> None:
    """Under the name that the package is built with."""
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    assert project["name"] == DISTRIBUTION
    try:
        version = metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        pytest.skip(f"{DISTRIBUTION} is not installed")
    result = run("--version")
    assert result.exit_code == 0, result.output
    assert result.stdout.strip() == version


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
        (["--bits", "abc"], "--bits"),
        (["--target-ratio", "-3"], "--target-ratio"),
        (["another.onnx"], "another.onnx"),
        (["-o", ""], "expected a file's name"),
        (["-o", "new/"], "expected a file's name"),
    ],
)
def test_bad_options(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], part: str
) -> None:
    monkeypatch.chdir(tmp_path)
    refused(run("compress", mlp(tmp_path / "m.onnx"), *options), part)
    assert names(tmp_path) == ["m.onnx"]


def test_calibration_that_does_not_match(tmp_path: Path) -> None:
    model = mlp(tmp_path / "m.onnx")
    np.savez(tmp_path / "c.npz", x=np.zeros((2, 63), np.float32))
    refused(run("compress", model, "--calibration", tmp_path / "c.npz"), "c.npz", "[2, 63]")
    ids = embedding(tmp_path / "e.onnx", rows=20)
    np.savez(tmp_path / "d.npz", ids=np.full((1, 3), 500))
    refused(run("compress", ids, "--calibration", tmp_path / "d.npz"), "d.npz", "does not run")


@pytest.mark.parametrize(
    ("array", "part"),
    [
        (np.zeros((0, 64), np.float32), "no values"),
        (np.full((2, 64), np.nan, np.float32), "x holds NaN"),
    ],
)
def test_calibration_that_measures_nothing(tmp_path: Path, array: object, part: str) -> None:
    np.savez(tmp_path / "c.npz", x=array)
    model = mlp(tmp_path / "m.onnx")
    refused(run("compress", model, "--calibration", tmp_path / "c.npz"), "c.npz", part)


def test_calibration_archive_without_arrays(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "c.npz", "w") as archive:
        archive.writestr("x", "no array")
    model = mlp(tmp_path / "m.onnx")
    refused(run("compress", model, "--calibration", tmp_path / "c.npz"), "c.npz", "no array")


@pytest.mark.parametrize("jobs", ["0", "-1", "x"])
@pytest.mark.parametrize("command", ["compress", "expand", "compare"])
def test_numbers_of_threads(tmp_path: Path, command: str, jobs: str) -> None:
    model = mlp(tmp_path / "m.onnx")
    assert run("compress", model, "--bits", 4, "-o", tmp_path / "s.onnx").exit_code == 0
    files = {"compress": [model], "expand": [tmp_path / "s.onnx"], "compare": [model, model]}
    refused(run(command, *files[command], "--jobs", jobs), "--jobs")
    assert names(tmp_path) == ["m.onnx", "s.onnx"]


def test_usage_errors_are_one_line() -> None:
    refused(run("compress"), "MODEL", "compress --help")
    refused(run("frobnicate"), "frobnicate")
    refused(run("doctor", "x"), "(x)")


def test_outputs_that_are_other_inputs(tmp_path: Path) -> None:
    model = mlp(tmp_path / "m.onnx")
    (tmp_path / "r.yaml").write_text("version: 1\n")
    np.savez(tmp_path / "c.npz", x=np.zeros((2, 64), np.float32))
    data = tmp_path / "e.onnx.data"
    onnx.save(
        onnx.load(str(model)),
        str(tmp_path / "e.onnx"),
        save_as_external_data=True,
        location=data.name,
        size_threshold=0,
    )
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    recipe, inputs = ["--recipe", tmp_path / "r.yaml"], ["--calibration", tmp_path / "c.npz"]
    refused(run("compress", model, *recipe, "-o", tmp_path / "r.yaml"), "r.yaml", "is the input")
    refused(run("compress", model, *recipe, "--report", tmp_path / "r.yaml"), "is the input")
    refused(run("compress", model, *inputs, "-o", tmp_path / "c.npz"), "c.npz", "is the input")
    refused(run("compress", tmp_path / "e.onnx", "-o", data), "e.onnx.data", "is the input")
    (tmp_path / "link").symlink_to(data)
    refused(run("compress", tmp_path / "e.onnx", "-o", tmp_path / "link"), "is the input")
    (tmp_path / "link").unlink()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_outputs_of_one_name(tmp_path: Path) -> None:
    model, place = mlp(tmp_path / "m.onnx"), tmp_path / "r"
    part = "is given for two outputs"
    refused(run("compress", model, "-o", place, "--report", place), f"{place}: {part}")
    refused(run("scan", model, "--recipe", place, "--report", place), f"{place}: {part}")
    assert names(tmp_path) == ["m.onnx"]


@pytest.mark.parametrize("command", ["compress", "expand", "inspect", "scan", "prune-channels"])
def test_folders_that_may_not_be_looked_into(
    tmp_path: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, closed = mlp(tmp_path / "m.onnx"), tmp_path / "closed"
    closed.mkdir()
    real = os.stat

    def stat(path: object, *arguments: object, **options: object) -> os.stat_result:
        if str(path).startswith(f"{closed}{os.sep}"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(os, "stat", stat)
    output = [] if command in ("inspect", "scan") else ["-o", tmp_path / "o.onnx"]
    refused(
        run(command, closed / "m.onnx", *output),
        f"error: {closed / 'm.onnx'}: ",
        "Permission denied",
    )
    if output:
        refused(run(command, model, "-o", closed / "o.onnx"), "o.onnx: cannot be written (Perm")
    assert names(tmp_path) == ["closed", "m.onnx"]


def test_external_data_is_not_replaced_by_external_data(tmp_path: Path) -> None:
    model = onnx.load(str(mlp(tmp_path / "m.onnx")))
    onnx.save(
        model,
        str(tmp_path / "e.onnx"),
        save_as_external_data=True,
        location="o.onnx.data",
        size_threshold=0,
    )
    refused(run("compress", tmp_path / "e.onnx", "-o", tmp_path / "o.onnx"), "o.onnx.data")


def test_a_device_is_no_output(tmp_path: Path) -> None:
    model, pipe = mlp(tmp_path / "m.onnx"), tmp_path / "pipe"
    os.mkfifo(pipe)
    refused(run("compress", model, "-o", pipe), "pipe", "device")
    refused(run("compress", model, "-o", tmp_path / "o.onnx", "--report", pipe), "device")
    assert pipe.is_fifo()
    assert names(tmp_path) == ["m.onnx", "pipe"]


def test_a_report_that_cannot_be_written_is_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tempfile

    (tmp_path / "closed").mkdir()
    make = tempfile.mkdtemp

    def refuse(*arguments: object, **options: object) -> str:
        if options.get("dir") == tmp_path / "closed":
            raise OSError(errno.EROFS, "Read-only file system")
        return make(*arguments, **options)  # type: ignore[call-overload, no-any-return]

    monkeypatch.setattr(tempfile, "mkdtemp", refuse)
    model = mlp(tmp_path / "m.onnx")
    result = run("compress", model, "--report", tmp_path / "closed" / "r.html")
    refused(result, "r.html", "Read-only file system")
    assert names(tmp_path) == ["closed", "m.onnx"]


def test_external_data_that_is_cut_is_named(tmp_path: Path) -> None:
    model = onnx.load(str(mlp(tmp_path / "m.onnx")))
    path = tmp_path / "e.onnx"
    onnx.save(model, str(path), save_as_external_data=True, location="e.bin", size_threshold=0)
    (tmp_path / "e.bin").write_bytes((tmp_path / "e.bin").read_bytes()[:100])
    for command in ("compress", "inspect", "expand"):
        refused(run(command, path), "e.onnx", "'A'", "e.bin is too short")
    refused(run("compare", path, path), "e.onnx", "'A'", "e.bin is too short")


def _break_operator(model: onnx.ModelProto) -> None:
    model.graph.node[0].op_type = "Nope"


def _break_input(model: onnx.ModelProto) -> None:
    model.graph.node[0].input[0] = "nothing"


def _declare_twice(model: onnx.ModelProto) -> None:
    model.graph.node[1].output[0] = "h0"


def _break_type(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].data_type = 99


def _break_values(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].ClearField("raw_data")
    model.graph.initializer[0].float_data.extend([1.0] * 5)


def _break_shape(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].ClearField("raw_data")
    model.graph.initializer[0].dims[:] = [1 << 32, 1 << 32]


@pytest.mark.parametrize(
    ("damage", "part"),
    [
        (_break_operator, "Nope"),
        (_break_input, "'nothing'"),
        (_declare_twice, "'h0'"),
        (_break_type, "'A': there is no type 99"),
        (_break_values, "expected 6144 values of float_data"),
        (_break_shape, "found 0"),
    ],
)
@pytest.mark.parametrize("command", ["compress", "compare"])
def test_malformed_graphs(
    tmp_path: Path, damage: Callable[[onnx.ModelProto], None], part: str, command: str
) -> None:
    path = mlp(tmp_path / "m.onnx")
    model = onnx.load(str(path))
    damage(model)
    onnx.save(model, str(path))
    files = [path] if command == "compress" else [path, path]
    done = subprocess.run(  # what onnx_ir logs is seen in a process of its own
        [sys.executable, "-m", "toolkit", command, *map(str, files)],
        capture_output=True,
        text=True,
        check=False,
    )
    lines = [line for line in done.stderr.splitlines() if line not in STAGES.values()]
    assert done.returncode == 2
    assert len(lines) == 1, lines
    assert "m.onnx" in lines[0]
    assert part in lines[0]
    assert names(tmp_path) == ["m.onnx"]


@pytest.mark.parametrize("command", ["compress", "inspect", "expand", "compare"])
def test_names_that_are_no_text(tmp_path: Path, command: str) -> None:
    path = mlp(tmp_path / "m.onnx")
    content = path.read_bytes()
    path.write_bytes(content.replace(b"\x42\x01A", b"\x42\x01\xff"))
    assert path.read_bytes() != content
    files = [path, path] if command == "compare" else [path]
    refused(run(command, *files), "m.onnx", "is not UTF-8")


def test_a_recipe_nested_too_deeply(tmp_path: Path) -> None:
    (tmp_path / "r.yaml").write_text("[" * 3000)
    model = mlp(tmp_path / "m.onnx")
    refused(run("compress", model, "--recipe", tmp_path / "r.yaml"), "r.yaml", "nested too deeply")


def test_the_command_ends_as_signals_ask(tmp_path: Path) -> None:
    """Runs the installed script's function; SIGTERM arrives while it works."""
    model = mlp(tmp_path / "m.onnx")
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())
    assert project["project"]["scripts"]["toolkit"] == "toolkit.cli:entry"
    for name, expected in (("SIGINT", 130), ("SIGTERM", 143)):
        code = (
            "import os, signal, toolkit.pipeline as p\n"
            f"p.read_source = lambda path: os.kill(os.getpid(), signal.{name})\n"
            "from toolkit.cli import entry\n"
            "entry()\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, "compress", str(model)],
            capture_output=True,
            text=True,
            check=False,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        assert done.returncode == expected, done.stderr
        assert done.stderr.splitlines()[-1] == "interrupted, nothing written"
    assert names(tmp_path) == ["m.onnx"]


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


@pytest.mark.skipif(not Path("/dev/full").is_char_device(), reason="there is no /dev/full")
def test_a_full_standard_output(tmp_path: Path) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "toolkit", "inspect", str(mlp(tmp_path / "m.onnx")), "--json"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 2
    assert done.stderr == "error: standard output: cannot be written, the disk is full\n"


def test_enospc_is_called_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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

    class Stop(console.ProgressLine):
        def __call__(self, name: str, detail: str) -> None:
            if name == stage:
                raise KeyboardInterrupt

    monkeypatch.setattr(console, "ProgressLine", Stop)
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
