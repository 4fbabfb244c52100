# SPDX-License-Identifier: Apache-2.0
"""`expand`: a compressed file back to plain ONNX."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from toolkit.errors import InputError, OutputError, one_line
from toolkit.output_file import beside, check_output, output_path, publish

PathLike = str | os.PathLike[str]


@dataclass
class Expansion:
    """What `expand` wrote: sizes in bytes, number of weights decoded."""

    model: str
    output: str
    compressed_bytes: int
    expanded_bytes: int
    num_weights: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def expand(
    model: PathLike, output: PathLike | None = None, *, jobs: int | None = None
) -> Expansion:
    """Writes the plain model behind a compressed one: its weights decoded to initializers, without
    any operator of the toolkit.

    Args:
        model: path of a compressed file.
        output: path of the result; `NAME.expanded.onnx` beside the model where None.
        jobs: threads; one per core where None.

    Raises:
        InputError: the file cannot be read, or is not compressed.
        OutputError: the result cannot be written; nothing half-written remains.
    """
    import onnx
    import onnx_ir as ir

    from passes.errors import ModelError
    from passes.model_file import deserialize, write_model
    from passes.sparse_initializers import densify
    from toolkit.model_check import read_any
    from toolkit.ort_session import thread_count
    from toolkit.verify import run_decoder

    path = Path(model)
    stem = path.name.removesuffix(".onnx").removesuffix(".compressed")
    default = path.with_name(f"{stem}.expanded.onnx")
    target = output_path(output) if output is not None else default
    threads = thread_count(jobs)
    before = read_any(path)
    check_output(target, [path, *before.external])
    if not before.is_compressed:
        raise InputError(f"{path}: is not compressed, there is nothing to expand")
    try:
        from runtime.graph_rewrite import cut, prepare

        parts = cut(prepare(before.proto))
    except (ValueError, KeyError) as error:
        raise InputError(f"{path}: its weights cannot be decoded ({one_line(error)})") from error
    if parts is None:
        raise InputError(f"{path}: holds operators of the toolkit, but no weight to decode")
    try:
        values = run_decoder(parts.decoder(), threads)
    except Exception as error:  # onnxruntime's exceptions share no public base
        raise InputError(f"{path}: its weights cannot be decoded ({one_line(error)})") from error
    for name in reversed(list(parts.weights)):  # each value is let go of once it is copied
        tensor = ir.serde.serialize_tensor(ir.tensor(values.pop(), name=name))
        parts.rest.graph.initializer.append(tensor)
        del tensor
    with beside(target) as temporary:
        try:
            densify(parts.rest, path.parent)
            plain = deserialize(parts.rest, path)
            size = int(write_model(plain, temporary))
        except ModelError as error:
            text = str(error).replace(str(temporary), str(target))
            raise OutputError(text) from error
        try:
            if size < onnx.checker.MAXIMUM_PROTOBUF:
                onnx.checker.check_model(str(temporary))
        except onnx.checker.ValidationError as error:
            raise OutputError(
                f"{target}: the expanded model is invalid ({one_line(error)})"
            ) from error
        publish(temporary, target)
    return Expansion(str(path), str(target), before.num_bytes, size, len(parts.weights))
