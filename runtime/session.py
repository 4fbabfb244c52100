# SPDX-License-Identifier: Apache-2.0
"""`InferenceSession`: onnxruntime's session for compressed models.

Load mode decodes all weights once, when the session is made, and hands them to ONNX Runtime as
ordinary initializers before its optimisers run: the session then is that of the plain model.
Stream mode keeps the weights compressed in memory and decodes each at every run.
A model without ops of the toolkit runs as it does in onnxruntime.
"""

from __future__ import annotations

import dataclasses
import mmap
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import onnx
import onnxruntime

from runtime import graph_fuse, graph_rewrite, session_options
from runtime.errors import ModelError, ProviderError
from runtime.graph_values import DOMAIN
from runtime.library import register

Mode = Literal["load", "stream"]
Source = str | bytes | os.PathLike[str]

_MAX_PROTO_BYTES = 2**31 - 1


class InferenceSession(onnxruntime.InferenceSession):  # type: ignore[misc]
    """An `onnxruntime.InferenceSession` that also runs compressed models.

    All methods are those of onnxruntime's class. Three things differ when it is made:

    - `mode` chooses how weights are decoded: "load" (once, now) or "stream" (at every run).
    - Execution providers asked for must really be active, else `ProviderError` names the missing
      ones. Falling back to another provider happens only with `enable_fallback=1`.
    - `sess_options` is copied and left as it is. Where the model uses custom ops of other domains,
      or the options hold providers, no copy can be made of them and the object itself is used: in
      stream mode the op library is then registered with it.

    Args:
        path_or_bytes: path of the model, or the serialised model.
        sess_options: as in onnxruntime.
        providers: as in onnxruntime.
        provider_options: as in onnxruntime.
        mode: "load" or "stream".
        **kwargs: as in onnxruntime.

    Raises:
        ModelError: a weight cannot be decoded; the message names the node and the cause.
        ProviderError: a provider that was asked for is not available or not active.
        LibraryError: the op library is missing.
    """

    def __init__(
        self,
        path_or_bytes: Source,
        sess_options: onnxruntime.SessionOptions | None = None,
        providers: Sequence[str | tuple[str, dict[Any, Any]]] | None = None,
        provider_options: Sequence[dict[Any, Any]] | None = None,
        *,
        mode: Mode = "load",
        **kwargs: Any,
    ) -> None:
        if mode not in ("load", "stream"):
            raise ValueError(f"mode is {mode!r}, expected 'load' or 'stream'")
        wanted = [item if isinstance(item, str) else item[0] for item in providers or ()]
        fallback = int(kwargs.setdefault("enable_fallback", 0)) == 1
        if not fallback:
            _check_providers(wanted, onnxruntime.get_available_providers(), "available")
        self._toolkit_source = (path_or_bytes, sess_options, mode, dict(kwargs))
        plan = _plan(path_or_bytes, sess_options, mode)
        super().__init__(plan.model, plan.options, providers, provider_options, **kwargs)
        if plan.weights:  # these options point to memory that is freed on return
            self._sess_options = self._sess_options_initial = plan.clean_options
        if not fallback:
            _check_providers(wanted, self.get_providers(), "active in the session")

    def set_providers(
        self,
        providers: Sequence[str | tuple[str, dict[Any, Any]]] | None = None,
        provider_options: Sequence[dict[Any, Any]] | None = None,
    ) -> None:
        """Make the session anew with other execution providers, as in onnxruntime."""
        source, options, mode, kwargs = self._toolkit_source
        self._release_captured_graphs()
        InferenceSession.__init__(
            self, source, options, providers, provider_options, mode=mode, **kwargs
        )


@dataclasses.dataclass
class _Plan:
    """What a session is made of.

    Attributes:
        model: the model to run.
        options: the options to run it with; they may refer to `weights`.
        clean_options: the same options without the weights.
        weights: decoded weights, to be kept until the session is made.
    """

    model: Source
    options: onnxruntime.SessionOptions | None
    clean_options: onnxruntime.SessionOptions | None = None
    weights: dict[str, onnxruntime.OrtValue] = dataclasses.field(default_factory=dict)


def _plan(source: Source, sess_options: onnxruntime.SessionOptions | None, mode: Mode) -> _Plan:
    """Read the model and rewrite it for the mode."""
    model = _read_compressed(source)
    if model is None:
        return _Plan(source, sess_options)
    folder = "" if isinstance(source, bytes) else str(Path(source).absolute().parent)
    model = graph_rewrite.prepare(model)
    own = sess_options is None or session_options.can_copy(sess_options, model)
    options = session_options.copy(sess_options) if own else sess_options
    if folder and own:
        session_options.set_folder(options, folder)
    weights = {}
    if mode == "stream":
        graph_fuse.fuse(model, folder)
    else:
        weights = _cut_weights(model, folder, options)
    if graph_rewrite.has_toolkit_nodes(model.graph) and not (
        options is sess_options and session_options.is_marked(options)
    ):
        register(options)
        session_options.mark(options)
    plan = _Plan(b"", options)
    for name, value in weights.items():
        model.graph.initializer.append(_initializer(name, value, inside=not own))
    if weights and own:
        plan.weights, plan.clean_options = weights, session_options.copy(options)
        session_options.add_initializers(options, weights)
    if folder and not own:
        onnx.load_external_data_for_model(model, folder)
    plan.model = _serialize(model)
    return plan


def _initializer(name: str, value: onnxruntime.OrtValue, *, inside: bool) -> onnx.TensorProto:
    """Describe a decoded weight: with its bytes inside, or as external data that is handed over."""
    tensor = onnx.TensorProto(name=name, data_type=value.element_type(), dims=value.shape())
    if inside:
        tensor.raw_data = session_options.memory_of(value).tobytes()
        return tensor
    tensor.data_location = onnx.TensorProto.EXTERNAL
    size = str(value.tensor_size_in_bytes())
    for key, entry in (("location", "decoded"), ("offset", "0"), ("length", size)):
        tensor.external_data.add(key=key, value=entry)
    return tensor


def _check_providers(wanted: Sequence[str], present: Sequence[str], where: str) -> None:
    missing = [name for name in wanted if name not in present]
    if missing:
        raise ProviderError(
            f"{', '.join(missing)} is not {where}; there is: {', '.join(present) or 'none'}"
        )


def _read_compressed(source: Source) -> onnx.ModelProto | None:
    """Parse the model where it names the toolkit's domain; None leaves it to onnxruntime."""
    mark = DOMAIN.encode()
    if isinstance(source, bytes):
        if mark not in source:
            return None
        content = source
    elif isinstance(source, str | os.PathLike):
        try:
            with (
                open(source, "rb") as file,
                mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped,
            ):
                if mapped.find(mark) < 0:
                    return None
                content = mapped[:]
        except (OSError, ValueError):  # missing or empty: onnxruntime says so in its own words
            return None
    else:
        return None
    try:
        model = onnx.load_model_from_string(content)
    except Exception:  # protobuf's DecodeError: not ONNX, which onnxruntime refuses
        return None
    return model if any(entry.domain == DOMAIN for entry in model.opset_import) else None


def _cut_weights(
    model: onnx.ModelProto, folder: str, options: onnxruntime.SessionOptions
) -> dict[str, onnxruntime.OrtValue]:
    """Take the decoding out of the model and run it; return the weights that the rest lacks."""
    parts = graph_rewrite.cut(model)
    if parts is None:
        return {}
    graph_fuse.fuse(parts.decoder, folder)
    return dict(zip(parts.weights, _decode(parts, folder, options), strict=True))


def _decode(
    parts: graph_rewrite.Cut, folder: str, options: onnxruntime.SessionOptions
) -> list[onnxruntime.OrtValue]:
    """Run the decoder once; return the weights in the order of `parts.weights`."""
    decoder_options = session_options.for_decoder(options)
    if folder:
        session_options.set_folder(decoder_options, folder)
    register(decoder_options)
    try:
        decoder = onnxruntime.InferenceSession(
            _serialize(parts.decoder),
            decoder_options,
            providers=["CPUExecutionProvider"],
            enable_fallback=0,
        )
        binding = decoder.io_binding()
        values = [session_options.empty_like(meta) for meta in decoder.get_outputs()]
        for meta, value in zip(decoder.get_outputs(), values, strict=True):
            if value is None:
                binding.bind_output(meta.name)
            else:
                binding.bind_ortvalue_output(meta.name, value)
        decoder.run_with_iobinding(binding)
        outputs = binding.get_outputs()
        return [own or other for own, other in zip(values, outputs, strict=True)]
    except Exception as error:  # the classes of ONNX Runtime's errors share no other base
        raise ModelError(f"the weights cannot be decoded: {error}") from error


def _serialize(model: onnx.ModelProto) -> bytes:
    if model.ByteSize() > _MAX_PROTO_BYTES:
        raise ModelError(
            f"the model has {model.ByteSize()} bytes besides its external data, a serialised "
            f"model at most {_MAX_PROTO_BYTES}: keep its large tensors as external data"
        )
    return bytes(model.SerializeToString())
