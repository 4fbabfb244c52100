# SPDX-License-Identifier: Apache-2.0
"""Weights decoded by ONNX Runtime, with the op library, for chains of whatever operators."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt
import onnx
import onnxruntime

from runtime import graph_fuse, session_options
from runtime.errors import ModelError
from runtime.library import register
from runtime.model_bytes import serialize


def run_decoder(
    decoder: onnx.ModelProto, folder: str, options: onnxruntime.SessionOptions
) -> list[npt.NDArray[Any]]:
    """Run a model without inputs once.

    Args:
        decoder: the model; it is changed.
        folder: where its external data lies.
        options: the options of the session that the weights are for.

    Returns:
        Its outputs; bfloat16 as ml_dtypes has it.

    Raises:
        ModelError: a weight cannot be decoded; the message names the node and the cause.
    """
    graph_fuse.fuse(decoder, folder)
    decoder_options = session_options.for_decoder(options)
    if folder:
        session_options.set_folder(decoder_options, folder)
    register(decoder_options)
    try:
        session = onnxruntime.InferenceSession(
            serialize(decoder),
            decoder_options,
            providers=["CPUExecutionProvider"],
            enable_fallback=0,
        )
        binding = session.io_binding()
        arrays = [session_options.empty_like(meta) for meta in session.get_outputs()]
        for meta, array in zip(session.get_outputs(), arrays, strict=True):
            if array is None:
                binding.bind_output(meta.name)
            else:
                binding.bind_ortvalue_output(meta.name, session_options.value_of(array))
        session.run_with_iobinding(binding)
        return [
            session_options.array_of(value) if array is None else array
            for array, value in zip(arrays, binding.get_outputs(), strict=True)
        ]
    except Exception as error:  # the classes of ONNX Runtime's errors share no other base
        raise ModelError(f"the weights cannot be decoded: {error}") from error
