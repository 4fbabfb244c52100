# SPDX-License-Identifier: Apache-2.0
"""Decodes weights whose chains are made of known operators, without a session of ONNX Runtime."""

from __future__ import annotations

import os
from collections.abc import Mapping

import numpy as np
import onnx

from runtime.chain_operators import OPERATORS, UnknownFormError, Value, array_of
from runtime.element_types import array_of_tensor
from runtime.errors import CodecError, ModelError, Status
from runtime.fresh_memory import FreshMemory
from runtime.graph_rewrite import Source
from runtime.graph_values import DOMAIN, Node, Scope
from runtime.lazy_symbols import Blob
from runtime.promises import Array, NotReadyError, Promise, Promises
from runtime.small import decode_small, small_info
from runtime.wide import WideReader

_WIDE = {"DecodeWide": np.dtype(np.int8), "DecodeWide16": np.dtype(np.int16)}
_SMALL = {"DecodeAdaptive": "adaptive", "DecodeHuffman": "huffman", "DecodeFixed": "fixed"}
_SLOWER = 32  # times that a symbol of a small coder takes longer


def decode_chains(weights: Mapping[str, Source], folder: str, threads: int) -> dict[str, Array]:
    """Decode weights.

    Args:
        weights: name -> scope and name of the value there.
        folder: where external data lies.
        threads: how many to use; 0 for one per core.

    Returns:
        Name -> weight, contiguous; bfloat16 as ml_dtypes has it. Weights of chains with other
        operators are absent.

    Raises:
        ModelError: a blob is refused; the message names it.
    """
    promises = Promises(threads or _cores())
    decoder = _ChainDecoder(folder, promises)
    found: dict[str, Array] = {}
    waiting = list(weights)
    while waiting:
        late = []
        for name in waiting:
            try:
                value = array_of(decoder.value(*weights[name]))
                found[name] = value if value.flags.c_contiguous else value.copy()
            except NotReadyError:
                late.append(name)
            except UnknownFormError:
                pass
        promises.keep_all()
        waiting = late
    return found


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


class _ChainDecoder:
    """Constant values, each made once."""

    def __init__(self, folder: str, promises: Promises) -> None:
        self._folder = folder
        self._promises = promises
        self._memory = FreshMemory()
        self._values: dict[tuple[int, str], Value] = {}

    def value(self, scope: Scope, name: str) -> Value:
        """Return the value that a name stands for in a scope."""
        home = scope.home(name)
        if home is None:
            raise ModelError(f"value '{name}' is read, but nothing makes it")
        key = id(home), name
        if key not in self._values:
            tensor = home.stored.get(name)
            if tensor is None:
                self._values[key] = self._run(home, home.producers[name])
            elif isinstance(tensor, onnx.TensorProto):
                self._values[key] = self._stored(tensor)
            else:
                raise UnknownFormError("a sparse initializer")
        return self._values[key]

    def _stored(self, tensor: onnx.TensorProto) -> Array:
        try:
            return array_of_tensor(tensor, self._folder)
        except Exception as error:  # onnx raises what NumPy, the file system and its checker do
            raise ModelError(f"initializer '{tensor.name}' cannot be read: {error}") from error

    def _run(self, home: Scope, node: Node) -> Value:
        if len(node.outputs) != 1 or not node.inputs:
            raise UnknownFormError(node.op_type)
        inputs = [self.value(home, name) if name else None for name in node.inputs]
        domain = "" if node.domain == "ai.onnx" else node.domain
        try:
            if domain == DOMAIN and node.op_type in _WIDE:
                return self._open_wide(node, array_of(inputs[0]))
            if domain == DOMAIN and node.op_type in _SMALL:
                return self._open_small(node, array_of(inputs[0]))
            operator = OPERATORS.get((domain, node.op_type))
            if operator is None:
                raise UnknownFormError(node.op_type)
            return operator(inputs, node)
        except (LookupError, TypeError) as error:  # an attribute or an input is missing
            raise UnknownFormError(f"{node.op_type}: {error}") from error
        except CodecError as error:
            raise ModelError(f"initializer '{node.inputs[0]}': {error}") from error

    def _open_wide(self, node: Node, words: Array) -> Blob:
        reader = WideReader(words)
        found, wanted = reader.info.dtype, _WIDE[node.op_type]
        if found != wanted:
            text = f"{node.op_type} expects {wanted} symbols, the blob holds {found}"
            raise CodecError(text, Status.CODER)
        return Blob(node.inputs[0], reader, self._promises, self._memory)

    def _open_small(self, node: Node, words: Array) -> Promise:
        coder, num_symbols = small_info(words)
        if coder != _SMALL[node.op_type]:
            raise CodecError(f"{node.op_type} meets a blob of the coder {coder}", Status.CODER)

        def decode(_: int) -> Array:
            try:
                return decode_small(words)
            except CodecError as error:
                raise ModelError(f"initializer '{node.inputs[0]}': {error}") from error

        return self._promises.add(decode, num_symbols * _SLOWER)
