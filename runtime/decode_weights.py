# SPDX-License-Identifier: Apache-2.0
"""The weights of a cut model: decoded here, or by a session of ONNX Runtime where that must."""

from __future__ import annotations

from collections.abc import Collection

import onnxruntime

from runtime.chain_decoder import decode_chains
from runtime.decoder_session import run_decoder
from runtime.graph_rewrite import Cut
from runtime.library import load_threads
from runtime.promises import Array


def decode_weights(
    parts: Cut,
    folder: str,
    options: onnxruntime.SessionOptions,
    but: Collection[str] = (),
) -> dict[str, Array]:
    """Decode all weights.

    Args:
        parts: a cut model.
        folder: where its external data lies.
        options: the options of the session that the weights are for; their threads are used.
        but: names of weights that are left out.

    Returns:
        Name -> weight, contiguous; bfloat16 as ml_dtypes has it.

    Raises:
        ModelError: a weight cannot be decoded; the message names the blob or node, and the cause.
    """
    wanted = {name: source for name, source in parts.weights.items() if name not in but}
    weights = decode_chains(wanted, folder, load_threads(options))
    others = [name for name in wanted if name not in weights]
    if others:
        found = run_decoder(parts.decoder(others), folder, options)
        weights |= zip(others, found, strict=True)
    return weights
