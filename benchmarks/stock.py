# SPDX-License-Identifier: Apache-2.0
"""Decoding by stock ONNX Runtime, without the op library: the function body of DecodeWide.

    python -m benchmarks.stock [--repeat N]

One core, millions of symbols a second, beside the op library's own decoder in the same loop.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import click
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from benchmarks.codec import CASES, best_seconds
from benchmarks.weight_symbols import quantise, real_weights, three_axes
from passes.function_bodies import function_bodies
from passes.operators import DECODE_WIDE, DOMAIN, DOMAIN_VERSION
from runtime.wide import WideReader, encode_wide

OPSET = 21


def decoder_session(blob: np.ndarray) -> onnxruntime.InferenceSession:
    """A session of one thread whose only node decodes `blob` by its function body."""
    output = helper.make_tensor_value_info("symbols", TensorProto.INT8, None)
    node = helper.make_node(DECODE_WIDE, ["blob"], ["symbols"], domain=DOMAIN)
    graph = helper.make_graph(
        [node], "decode", [], [output], [numpy_helper.from_array(blob, "blob")]
    )
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(DOMAIN, DOMAIN_VERSION)]
    model = helper.make_model(
        graph,
        opset_imports=opsets,
        functions=function_bodies({DECODE_WIDE}, OPSET),
        ir_version=onnx.IR_VERSION_2023_5_5,
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


@click.command()
@click.option("--repeat", default=2, show_default=True, help="Turns of each decoder.")
def main(repeat: int) -> None:
    """Decoding by stock ONNX Runtime beside the op library, on one core."""
    for network, bits in CASES:
        tensors = [three_axes(quantise(w, bits)) for w in real_weights(network).values()]
        count = sum(t.size for t in tensors)
        blob = encode_wide(tensors)
        reader, session = WideReader(blob), decoder_session(blob)
        if not np.array_equal(session.run(None, {})[0], reader.decode_all()):
            raise SystemExit(f"{network}, {bits} bits: the function body decodes something else")
        turns: dict[str, Callable[[], object]] = {
            "stock": partial(session.run, None, {}),
            "library": partial(reader.decode_all, threads=1),
        }
        seconds = best_seconds(turns, repeat)
        stock, library = (count / seconds[name] / 1e6 for name in ("stock", "library"))
        print(f"{network}, {bits} bits: stock {stock:.1f} M symbols/s, library {library:.0f}")


if __name__ == "__main__":
    main()
