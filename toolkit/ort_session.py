# SPDX-License-Identifier: Apache-2.0
"""Plain onnxruntime sessions on the CPU, quiet, and their outputs by name."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.errors import InputError, one_line

if TYPE_CHECKING:
    import onnx_ir as ir
    import onnxruntime

FATAL_ONLY = 4
_FOLDER_KEY = "session.model_external_initializers_file_folder_path"


def thread_count(jobs: int | None) -> int:
    """Threads to use: `jobs`, or one per core for None. Raises `InputError` below 1."""
    if jobs is not None and jobs < 1:
        raise InputError(f"--jobs: expected at least 1, found {jobs}")
    return jobs or os.cpu_count() or 1


def quiet_options(threads: int = 0, lean: bool = True) -> onnxruntime.SessionOptions:
    """Session options without log output; `threads` 0 takes one per core. `lean` sessions come and
    go: no memory arena, no second, packed copy of the weights."""
    import onnxruntime

    onnxruntime.set_default_logger_severity(FATAL_ONLY)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = FATAL_ONLY
    options.intra_op_num_threads = threads
    if lean:
        options.enable_cpu_mem_arena = False
        options.enable_mem_pattern = False
        options.add_session_config_entry("session.disable_prepacking", "1")
    return options


def open_session(path: Path, threads: int = 0, lean: bool = True) -> onnxruntime.InferenceSession:
    """A stock session of a file. Raises `InputError` naming the file where ONNX Runtime refuses."""
    import onnxruntime

    try:
        return onnxruntime.InferenceSession(
            str(path), quiet_options(threads, lean), providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # onnxruntime's own exception classes share no public base
        raise InputError(
            f"{path}: ONNX Runtime cannot load the model ({one_line(error)})"
        ) from error


def session_of(
    model: ir.Model, options: onnxruntime.SessionOptions
) -> onnxruntime.InferenceSession:
    """A stock session of a model in memory; external data is found in any working directory. Raises
    what ONNX Runtime does."""
    import onnx_ir as ir
    import onnxruntime

    for value in (v for graph in model.graphs() for v in graph.initializers.values()):
        if isinstance(value.const_value, ir.ExternalTensor):
            folder = str(Path(value.const_value.path).parent.resolve())
            options.add_session_config_entry(_FOLDER_KEY, folder)
            break
    data = ir.to_proto(model).SerializeToString()
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def run_named(session: Any, feed: Mapping[str, Any]) -> dict[str, Any]:
    """All outputs of one run by name."""
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(feed)), strict=True))
