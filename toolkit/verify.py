# SPDX-License-Identifier: Apache-2.0
"""Runs a written file again, from the disk, in every way it runs, and looks at its weights."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from toolkit.calibration import Feed
from toolkit.errors import VerificationError, one_line
from toolkit.ort_session import open_session, quiet_options, run_named

if TYPE_CHECKING:
    import onnx

    from passes.schemes import Parameters
    from toolkit.metrics import Score

Outputs = list[dict[str, Any]]
Expected = str | npt.NDArray[Any]

MOST_IN_MEMORY = 1 << 29
"""Bytes of a file that is copied to look at values inside of it."""

# Share of the largest weight by which sums of products may differ; by default 1e-5.
_ROUND_OFF = {"float16": 2.0**-9, "bfloat16": 2.0**-6}


def digest(array: npt.NDArray[Any]) -> str:
    """A digest of type, shape and bits."""
    head = f"{array.dtype.name}{list(array.shape)}".encode()
    body = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return hashlib.blake2b(body.data, digest_size=16, key=head[:64]).hexdigest()


def expected_weights(fitted: Mapping[str, Parameters]) -> dict[str, Expected]:
    """The weights that the parameters stand for: digests, or the values of those whose decoding
    adds up products (`Parameters.is_exact`)."""
    expected: dict[str, Expected] = {}
    for name, parameters in fitted.items():
        value = parameters.decode()
        expected[name] = digest(value) if parameters.is_exact else value
    return expected


def _agrees(value: npt.NDArray[Any], expected: Expected) -> bool:
    if isinstance(expected, str):
        return digest(value) == expected
    if value.dtype != expected.dtype or value.shape != expected.shape:
        return False
    wanted = expected.astype(np.float32)
    share = _ROUND_OFF.get(value.dtype.name, 1e-5)
    limit = share * float(np.abs(wanted).max(initial=0))
    return bool((np.abs(value.astype(np.float32) - wanted) <= limit).all())


def check_weights(
    path: Path, expected: Mapping[str, Expected], skipped: Sequence[str], threads: int = 0
) -> int:
    """Decodes the weights of a compressed file and compares them with what was fitted, by name.
    Names in `skipped` stayed as they were. Returns the number of weights compared.
    Raises `VerificationError` naming the first that differs or is missing."""
    missing = set(expected) - set(skipped)
    compared = 0
    for read in (decoded_weights, stored_weights):
        for name, value in read(path, frozenset(missing), threads):
            if name in missing:
                missing.discard(name)
                compared += 1
                if not _agrees(value, expected[name]):
                    text = f"{path}: weight {name} does not decode to what was fitted"
                    raise VerificationError(text)
    if missing:
        raise VerificationError(f"{path}: weight {sorted(missing)[0]} is not in the written file")
    return compared


def stored_weights(
    path: Path, names: Collection[str], threads: int = 0
) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    """Name and value of those of `names` that no decoder makes: sparse initializers, and what
    standard operators make of symbols that are stored as they are."""
    import onnx

    from passes.sparse_initializers import densify

    proto = onnx.load(str(path))
    sparse = densify(proto, path.parent)
    makers = {output: node for node in proto.graph.node for output in node.output}
    wanted = [name for name in names if name in sparse or name in makers]
    needed, queue = set(wanted), list(wanted)
    while queue:
        node = makers.get(queue.pop())
        queue += [n for n in (node.input if node is not None else ()) if n and n not in needed]
        needed.update(queue)
    kept = [node for node in proto.graph.node if not needed.isdisjoint(node.output)]
    tensors = [tensor for tensor in proto.graph.initializer if tensor.name in needed]
    outputs = [onnx.ValueInfoProto(name=name) for name in wanted]
    for name in set(wanted) & set(sparse):  # an output must be made by a node
        outputs[wanted.index(name)].name = f"{name}:0"
        kept.append(onnx.NodeProto(op_type="Identity", input=[name], output=[f"{name}:0"]))
    decoder = onnx.ModelProto(ir_version=proto.ir_version, opset_import=proto.opset_import)
    decoder.graph.CopyFrom(onnx.helper.make_graph(kept, "stored", [], outputs, tensors))
    if wanted:
        yield from zip(wanted, run_decoder(decoder, threads), strict=True)


def decoded_weights(
    path: Path, inside: Collection[str] = (), threads: int = 0
) -> Iterator[tuple[str, npt.NDArray[Any]]]:
    """Name and value of every weight that the decode chains of a file make, and of the values named
    `inside` that stand before the end of a chain (a Transpose of a weight belongs to the chain)."""
    parts = split_file(path)
    if parts is None:
        return
    decoder, _ = parts
    made = {name for node in decoder.graph.node for name in node.output}
    for name in sorted(made.intersection(inside) - {o.name for o in decoder.graph.output}):
        decoder.graph.output.add(name=name)
    yield from zip(
        [output.name for output in decoder.graph.output],
        run_decoder(decoder, threads),
        strict=True,
    )


def split_file(path: Path) -> tuple[onnx.ModelProto, onnx.ModelProto] | None:
    """The decoder and the rest of a compressed file (`runtime.graph_rewrite.cut`), None for a file
    with nothing to decode. External data is loaded."""
    import onnx

    from runtime.graph_rewrite import cut, prepare

    parts = cut(prepare(onnx.load(str(path))))
    return (parts.decoder(), parts.rest) if parts is not None else None


def run_decoder(decoder: onnx.ModelProto, threads: int = 0) -> list[npt.NDArray[Any]]:
    """All outputs of a decoder with the op library registered, fused as load mode runs it; changes
    `decoder`. bfloat16 comes as ml_dtypes."""
    import onnx
    import onnxruntime

    import runtime
    from runtime.graph_fuse import fuse

    fuse(decoder, "")
    options = quiet_options(threads)
    options.enable_mem_reuse = False  # each weight is an output: there is nothing to reuse
    runtime.register(options)
    session = onnxruntime.InferenceSession(
        decoder.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    values = session.run_with_ort_values([output.name for output in session.get_outputs()], {})
    arrays = []
    for value in values:
        if value.element_type() == onnx.TensorProto.BFLOAT16:
            import ml_dtypes

            arrays.append(_bfloat16_bits(value).view(ml_dtypes.bfloat16))
        else:
            arrays.append(value.numpy())
    return arrays


def _bfloat16_bits(value: Any) -> npt.NDArray[np.uint16]:
    """The bits of a bfloat16 OrtValue, uint16, copied from its memory."""
    import ctypes

    shape = tuple(value.shape())
    count = int(np.prod(shape))
    words = ctypes.string_at(value.data_ptr(), 2 * count)
    return np.frombuffer(words, np.uint16).reshape(shape)


def run_original(path: Path, feeds: Sequence[Feed], threads: int = 0) -> Outputs:
    """Outputs of the original file on stock ONNX Runtime."""
    session = open_session(path, threads)
    return [run_named(session, feed) for feed in feeds]


def run_compressed(
    path: Path,
    feeds: Sequence[Feed],
    threads: int = 0,
    mode: Literal["load", "stream"] = "load",
) -> Outputs:
    """Outputs of a compressed file through `runtime.InferenceSession`."""
    return _run(path, lambda: _session(path, threads, mode), feeds, f"{mode} mode")


def run_parts(
    path: Path, parted: Mapping[str, Sequence[str]], feeds: Sequence[Feed], threads: int = 0
) -> Outputs | None:
    """Outputs of a compressed file in load mode, and the parts of those in `parted` by key; None
    where the file is too large to be changed in memory, or has other parts."""
    import onnx
    import onnx_ir as ir

    from toolkit.output_parts import output_parts

    if path.stat().st_size > MOST_IN_MEMORY:
        return None
    parts = [part for found in output_parts(ir.load(path).graph).values() for part in found]
    names = {part.key: str(part.value.name) for part in parts}
    proto = onnx.load(str(path), load_external_data=False)
    stored = any(t.data_location == onnx.TensorProto.EXTERNAL for t in proto.graph.initializer)
    if stored or set(names) != {key for keys in parted.values() for key in keys}:
        return None
    present = {output.name for output in proto.graph.output}
    proto.graph.output.extend(
        onnx.ValueInfoProto(name=name)
        for name in dict.fromkeys(names.values())
        if name not in present
    )

    def run_all(feed: Feed) -> dict[str, Any]:
        found = run_named(session, feed)
        mine = {name: found[name] for name in found if name in present}
        return mine | {key: found[name] for key, name in names.items()}

    with _way(path, "load mode"):
        session = _session(proto.SerializeToString(), threads)
        return [run_all(feed) for feed in feeds]


def score(path: Path, metric: Score, threads: int = 0) -> float:
    """A metric of a compressed file in load mode."""
    session = _session(path, threads)
    return metric.score(lambda feed: run_named(session, feed))


def _session(model: Path | bytes, threads: int, mode: Literal["load", "stream"] = "load") -> Any:
    import runtime

    return runtime.InferenceSession(
        model if isinstance(model, bytes) else str(model),
        quiet_options(threads),
        providers=["CPUExecutionProvider"],
        mode=mode,
    )


def run_stock(path: Path, feeds: Sequence[Feed], threads: int = 0) -> Outputs:
    """Outputs of a compressed file on stock ONNX Runtime, by its function bodies."""
    return _run(path, lambda: open_session(path, threads), feeds, "stock ONNX Runtime")


def _run(path: Path, make: Callable[[], Any], feeds: Sequence[Feed], way: str) -> Outputs:
    with _way(path, way):
        session = make()
        return [run_named(session, feed) for feed in feeds]


@contextmanager
def _way(path: Path, way: str) -> Iterator[None]:
    """Turns whatever goes wrong while a file runs into `VerificationError`."""
    try:
        yield
    except Exception as error:  # whatever it is, the file that was written does not run
        raise VerificationError(
            f"{path}: the written file does not run in {way} ({one_line(error)})"
        ) from error
