# SPDX-License-Identifier: Apache-2.0
"""`InferenceSession`: onnxruntime's session for compressed models.

Load mode decodes all weights once, when the session is made, and hands them to ONNX Runtime as
ordinary initializers before its optimisers run: the session then is that of the plain model. The
decoding uses every core for a moment, unless the entry `toolkit.threads` says otherwise; on CUDA
the device decodes the weights of products (`device_weights`), unless `toolkit.unpack` is "host".
Stream mode keeps the weights compressed in memory and decodes each at every run; packed mode does
so too, but float16 products whose weight has few bits read it packed (`graph_pack`).
On CUDA weights are decoded ahead on a second stream, unless the entry `toolkit.prefetch` is "0"; so
many together as the entry `toolkit.prefetch_bytes` has room for.
A model without ops of the toolkit runs as it does in onnxruntime.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import mmap
import os
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, cast

import onnx
import onnxruntime

from runtime import (
    device_weights,
    graph_fuse,
    graph_pack,
    graph_products,
    graph_rewrite,
    session_options,
)
from runtime.decode_weights import decode_weights
from runtime.decoding_device import CudaDevice, DecodingDevice
from runtime.device_weights import DeviceWeights, empty_data
from runtime.errors import ProviderError
from runtime.graph_values import DOMAIN
from runtime.library import load_threads, register
from runtime.load_plan import load_plainly
from runtime.model_bytes import serialize
from runtime.promises import Array

Mode = Literal["load", "stream", "packed"]
Residency = Literal["dense", "packed", "stream"]
Source = str | bytes | os.PathLike[str]

_session_numbers = itertools.count(1)

_SMALL_BYTES = 1 << 12
"""Weights up to this size go into the model: describing them elsewhere takes longer."""


class InferenceSession(onnxruntime.InferenceSession):  # type: ignore[misc]
    """An `onnxruntime.InferenceSession` that also runs compressed models.

    All methods are those of onnxruntime's class. Three things differ when it is made:

    - `mode` chooses how weights are decoded: "load" (once, now), "stream" (at every run) or
      "packed" (not at all where products can read them packed, else at every run).
    - `residency` says the same by what lies in the memory of the device that runs the model:
      "dense" weights (mode "load"), "packed" ones, or the compressed "stream".
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
        mode: "load", "stream" or "packed".
        residency: "dense", "packed" or "stream", in the place of `mode`.
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
        residency: Residency | None = None,
        **kwargs: Any,
    ) -> None:
        mode = _mode_of(mode, residency)
        wanted = [item if isinstance(item, str) else item[0] for item in providers or ()]
        fallback = int(kwargs.setdefault("enable_fallback", 0)) == 1
        if not fallback:
            _check_providers(wanted, onnxruntime.get_available_providers(), "available")
            _check_gpu(wanted, mode)
        self._toolkit_source = (path_or_bytes, sess_options, mode, dict(kwargs))

        def start(device: DecodingDevice | None, careful: bool = False) -> None:
            types = _types_of_products(wanted)
            plan = _plan(path_or_bytes, sess_options, mode, types, device, careful)
            with empty_data() if plan.unpacked else contextlib.nullcontext("") as folder:
                if plan.unpacked:
                    session_options.set_folder(plan.options, folder)
                    plan.unpacked.hand_over(plan.options)
                if plan.weights:
                    session_options.add_initializers(plan.options, plan.weights)
                super(InferenceSession, self).__init__(
                    plan.model, plan.options, providers, provider_options, **kwargs
                )
            self._unpacked = plan.unpacked  # what owns the memory of the session's weights
            if plan.weights or plan.unpacked:  # the plan's options point to memory that is freed
                given = plan.given_options or onnxruntime.SessionOptions()
                self._sess_options = self._sess_options_initial = given

        device = None
        if mode == "load" and not session_options.wants_host(sess_options):
            device = _unpack_device(wanted, providers or (), provider_options or ())
        reason = ""
        for careful in (False, True) if device is not None else ():
            try:
                start(device, careful)
                break
            except Exception as error:  # ONNX Runtime's errors share no other base
                reason = str(error)
        else:
            start(None)  # which raises what is not the device's fault
            if reason:
                _say_host(reason)
        if not fallback:
            _check_providers(wanted, self.get_providers(), "active in the session")

    @property
    def weights_on_device(self) -> tuple[str, ...]:
        """The names of the weights that were decoded on the device when the session was made; all
        others were decoded on the host, or are decoded at every run."""
        return tuple(self._unpacked.values) if self._unpacked is not None else ()

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


def _mode_of(mode: str, residency: str | None) -> Mode:
    modes: dict[str, Mode] = {"dense": "load", "packed": "packed", "stream": "stream"}
    if residency is not None:
        if residency not in modes:
            raise ValueError(f"residency is {residency!r}, expected {', '.join(map(repr, modes))}")
        if mode not in ("load", modes[residency]):
            raise ValueError(f"mode {mode!r} contradicts residency {residency!r}")
        return modes[residency]
    if mode not in modes.values():
        raise ValueError(f"mode is {mode!r}, expected 'load', 'stream' or 'packed'")
    return cast(Mode, mode)


def _check_gpu(wanted: Sequence[str], mode: Mode) -> None:
    """Raise `ProviderError` where the library's own kernels are needed on CUDA and cannot run."""
    if mode == "load" or "CUDAExecutionProvider" not in wanted:
        return
    from runtime import gpu

    problem = gpu.why_not()
    if problem:
        raise ProviderError(f"CUDAExecutionProvider cannot decode weights: {problem}")


def _unpack_device(
    wanted: Sequence[str],
    providers: Sequence[str | tuple[str, dict[Any, Any]]],
    provider_options: Sequence[dict[Any, Any]],
) -> DecodingDevice | None:
    """Where load mode decodes; None for the host."""
    if not wanted or wanted[0] != "CUDAExecutionProvider":
        return None
    from runtime import gpu

    given = providers[0]
    settings = dict(given[1]) if not isinstance(given, str) else {}
    settings |= dict(provider_options[0]) if provider_options else {}
    number = int(settings.get("device_id", 0))
    problem = gpu.why_not(number)
    if problem:
        _say_host(problem)
        return None
    return CudaDevice(number)


def _say_host(reason: str) -> None:
    warnings.warn(f"weights are decoded on the host: {reason}", RuntimeWarning, stacklevel=3)


@dataclasses.dataclass
class _Plan:
    """What a session is made of.

    Attributes:
        model: the model to run.
        options: the options to run it with.
        given_options: the caller's.
        weights: decoded weights that the model lacks.
        unpacked: weights that it has on the device.
    """

    model: Source
    options: onnxruntime.SessionOptions | None
    given_options: onnxruntime.SessionOptions | None = None
    weights: dict[str, Array] = dataclasses.field(default_factory=dict)
    unpacked: DeviceWeights | None = None


def _types_of_products(wanted: Sequence[str]) -> frozenset[int]:
    """The types of weights that the providers' own products can be run with from an op."""
    if set(wanted) <= {"CPUExecutionProvider"}:
        return graph_products.CPU_TYPES
    if wanted[0] == "CUDAExecutionProvider":
        return graph_products.CUDA_TYPES
    return frozenset()


def _plan(
    source: Source,
    sess_options: onnxruntime.SessionOptions | None,
    mode: Mode,
    product_types: frozenset[int],
    device: DecodingDevice | None = None,
    careful: bool = False,
) -> _Plan:
    """Read the model and rewrite it for the mode."""
    with _compressed(source) as content:
        if content is None:
            return _Plan(source, sess_options)
        plainly = mode == "load" and device is None
        if plainly and (sess_options is None or not sess_options.has_providers()):
            threads = load_threads(sess_options) if sess_options is not None else 0
            loaded = load_plainly(content, _SMALL_BYTES, threads)
            if loaded is not None:
                options = session_options.copy(sess_options)
                if loaded.needs_folder:
                    session_options.set_folder(options, _folder(source))
                return _Plan(loaded.model, options, sess_options, loaded.weights)
        model = _parse(content)
    if model is None or not _imports_toolkit(model):
        return _Plan(source, sess_options)
    return _rewrite(model, _folder(source), sess_options, mode, product_types, device, careful)


def _rewrite(
    model: onnx.ModelProto,
    folder: str,
    sess_options: onnxruntime.SessionOptions | None,
    mode: Mode,
    product_types: frozenset[int],
    device: DecodingDevice | None,
    careful: bool,
) -> _Plan:
    model = graph_rewrite.prepare(model)
    own = sess_options is None or session_options.can_copy(sess_options, model)
    options = session_options.copy(sess_options) if own else sess_options
    weights: dict[str, Array] = {}
    unpacked = None
    if mode != "load":
        graph_fuse.fuse(model, folder)
        if mode == "packed":
            graph_pack.pack(model, folder, product_types)
        on_cuda = product_types == graph_products.CUDA_TYPES
        number = next(_session_numbers) if on_cuda else 0
        ahead = on_cuda and session_options.wants_prefetch(options)
        graph_products.fuse_products(
            model,
            product_types,
            number,
            ahead=ahead,
            ahead_bytes=session_options.prefetch_bytes(options) if ahead else 0,
            branches=not on_cuda,
        )
    else:
        parts = graph_rewrite.cut(model)
        if parts is not None:
            if own and device and not session_options.has_folder(options):
                unpacked = _unpack(parts, folder, device, careful)
            weights = decode_weights(parts, folder, options, unpacked.values if unpacked else ())
    if own and not unpacked:
        session_options.set_folder(options, folder)
    if _imports_toolkit(model) and not (
        options is sess_options and session_options.is_marked(options)
    ):
        register(options)
        session_options.mark(options)
    plan = _Plan(b"", options, sess_options, unpacked=unpacked)
    if folder and (unpacked or not own):
        onnx.load_external_data_for_model(model, folder)
    if unpacked:
        model.graph.initializer.extend(unpacked.describe())
    for name, value in weights.items():
        inside = not own or value.nbytes <= _SMALL_BYTES
        tensor = session_options.initializer_of(name, value, inside=inside)
        model.graph.initializer.append(tensor)
        if not inside:
            plan.weights[name] = value
    plan.model = serialize(model)
    return plan


def _unpack(
    parts: graph_rewrite.Cut, folder: str, device: DecodingDevice, careful: bool
) -> DeviceWeights | None:
    """Decode on a device what is to be decoded there, if anything is."""
    chosen = device_weights.choose(parts, folder, careful=careful)
    return device_weights.decode_on(device, chosen, folder) if chosen.names else None


def _folder(source: Source) -> str:
    return "" if isinstance(source, bytes) else str(Path(source).absolute().parent)


def _check_providers(wanted: Sequence[str], present: Sequence[str], where: str) -> None:
    missing = [name for name in wanted if name not in present]
    if missing:
        raise ProviderError(
            f"{', '.join(missing)} is not {where}; there is: {', '.join(present) or 'none'}"
        )


@contextlib.contextmanager
def _compressed(source: Source) -> Iterator[bytes | mmap.mmap | None]:
    """Open a model that may name the toolkit's domain; None leaves it to onnxruntime."""
    mark = DOMAIN.encode()
    if isinstance(source, bytes):
        yield source if mark in source else None
        return
    mapped = None
    if isinstance(source, str | os.PathLike):
        try:
            with open(source, "rb") as file:
                mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError):  # missing or empty: onnxruntime says so in its own words
            pass
    with mapped or contextlib.nullcontext():
        yield mapped if mapped is not None and mapped.find(mark) >= 0 else None


def _parse(content: bytes | mmap.mmap) -> onnx.ModelProto | None:
    try:
        return onnx.load_model_from_string(content[:])
    except Exception:  # protobuf's DecodeError: not ONNX, which onnxruntime refuses
        return None


def _imports_toolkit(model: onnx.ModelProto) -> bool:
    return any(entry.domain == DOMAIN for entry in model.opset_import)
