# SPDX-License-Identifier: Apache-2.0
"""ONNX Runtime's own block quantisation of matrices (MatMulNBits), as files to compare with."""

from __future__ import annotations

from pathlib import Path


def write_blocks(model: Path, output: Path, bits: int, block: int, with_tables: bool) -> None:
    """Writes `model` with its constant matrices in blocks of `block` values of `bits` bits; with
    `with_tables` those that a Gather reads, too, where ONNX Runtime has them (4 bits)."""
    import onnx
    from onnxruntime.quantization import QuantFormat
    from onnxruntime.quantization.matmul_nbits_quantizer import (
        DefaultWeightOnlyQuantConfig,
        MatMulNBitsQuantizer,
    )

    kinds = ("MatMul", "Gather") if with_tables else ("MatMul",)
    config = DefaultWeightOnlyQuantConfig(
        block_size=block,
        is_symmetric=True,
        bits=bits,
        quant_format=QuantFormat.QOperator,
        op_types_to_quantize=kinds,
    )
    quantiser = MatMulNBitsQuantizer(onnx.load(str(model)), algo_config=config)
    quantiser.process()
    quantiser.model.save_model_to_file(str(output), False)
