# SPDX-License-Identifier: Apache-2.0
"""The structures of the C API, field by field as `csrc/codec_api.h` declares them."""

from __future__ import annotations

import ctypes

_i32, _i64, _pointer = ctypes.c_int32, ctypes.c_int64, ctypes.c_void_p


class TensorToEncode(ctypes.Structure):
    """`tk_tensor`: A x B x C symbols in row-major order."""

    _fields_ = [
        ("symbols", _pointer),
        ("a", _i64),
        ("b", _i64),
        ("c", _i64),
        ("trellis", _i32),
        ("reserved", _i32),
    ]


class WideOptions(ctypes.Structure):
    """`tk_wide_options`."""

    _fields_ = [
        ("wide", _i32),
        ("contexts", _i32),
        ("classes", _i32),
        ("steps", _i32),
        ("threads", _i32),
        ("reserved", _i32),
    ]


class Search(ctypes.Structure):
    """`tk_search`."""

    _fields_ = [
        ("values", _pointer),
        ("importance", _pointer),
        ("kept", _pointer),
        ("a", _i64),
        ("b", _i64),
        ("c", _i64),
        ("rate_weight", ctypes.c_double),
        ("trellis", _i32),
        ("most", _i32),
        ("rounds", _i32),
        ("starts", _i32),
        ("threads", _i32),
        ("isa", _i32),
    ]


class FeatureBlock(ctypes.Structure):
    """`tk_feature_block`."""

    _fields_ = [
        ("targets", _pointer),
        ("coupling", _pointer),
        ("importance", _pointer),
        ("output_importance", _pointer),
        ("places", _pointer),
        ("kept", _pointer),
        ("features", _i64),
        ("outputs", _i64),
        ("stride", _i64),
        ("rate_weight", ctypes.c_double),
        ("most", _i32),
        ("refine", _i32),
    ]


class RatesInfo(ctypes.Structure):
    """`tk_rates_info`."""

    _fields_ = [
        ("rows", _i64),
        ("columns", _i64),
        ("classes", _i32),
        ("contexts", _i32),
        ("tables", _i32),
        ("low_bits", _i32),
    ]


class RatesModel(ctypes.Structure):
    """`tk_rates_model`."""

    _fields_ = [
        ("row_classes", _pointer),
        ("column_classes", _pointer),
        ("t1", _pointer),
        ("t2", _pointer),
        ("map", _pointer),
        ("bits", _pointer),
    ]


class WideInfo(ctypes.Structure):
    """`tk_wide_info`: the counts of FORMAT.md 2.2."""

    _fields_ = [
        ("num_tensors", _i64),
        ("num_lanes", _i64),
        ("num_blocks", _i64),
        ("num_steps", _i64),
        ("num_code_words", _i64),
        ("num_exceptions", _i64),
        ("side_words", _i64),
        ("wide", _i32),
        ("num_sets", _i32),
    ]


class WideTensorInfo(ctypes.Structure):
    """`tk_wide_tensor_info`."""

    _fields_ = [
        ("a", _i64),
        ("b", _i64),
        ("c", _i64),
        ("rows_per_lane", _i64),
        ("first_lane", _i64),
        ("num_lanes", _i64),
        ("code_words", _i64),
        ("set", _i32),
        ("low_bits", _i32),
        ("contexts", _i32),
        ("reserved", _i32),
    ]


class Dequantize(ctypes.Structure):
    """`tk_dequantize`."""

    _fields_ = [
        ("scales", _pointer),
        ("zero_points", _pointer),
        ("num_scales", _i64),
        ("inner", _i64),
        ("num_values", _i64),
        ("out_type", _i32),
    ]


class Output(ctypes.Structure):
    """`tk_output`: what becomes of the symbols that a GPU decodes."""

    _fields_ = [
        ("kind", _i32),
        ("scale_type", _i32),
        ("zero_type", _i32),
        ("reserved", _i32),
        ("scales", _pointer),
        ("zero_points", _pointer),
        ("codebook", _pointer),
        ("num_scales", _i64),
        ("inner", _i64),
        ("length", _i64),
        ("block", _i64),
        ("num_entries", _i64),
        ("offset", _i64),
        ("num_values", _i64),
    ]


class DecodeRequest(ctypes.Structure):
    """`tk_cuda_request`: a tensor to decode on a device."""

    _fields_ = [
        ("decoder", _pointer),
        ("output", ctypes.POINTER(Output)),
        ("out", _pointer),
        ("out_bytes", _i64),
    ]


class PlanInfo(ctypes.Structure):
    """`tk_plan_info`: the geometry of a launch."""

    _fields_ = [
        ("layout", _i32),
        ("grid", _i32),
        ("warps", _i32),
        ("shared_bytes", _i32),
        ("tables", _i32),
        ("entries", _i32),
        ("record_bytes", _i32),
        ("span", _i32),
        ("image_bytes", _i64),
        ("num_blocks", _i64),
    ]


class Packed(ctypes.Structure):
    """`tk_packed`: a product with a packed weight."""

    _fields_ = [
        ("x", _pointer),
        ("packed", _pointer),
        ("scales", _pointer),
        ("zeros", _pointer),
        ("codebook", _pointer),
        ("out", _pointer),
        ("batch", _i64),
        ("outputs", _i64),
        ("inputs", _i64),
        ("group_inputs", _i64),
        ("bits", _i32),
        ("zero", _i32),
    ]


class Unpacking(ctypes.Structure):
    """`tk_unpacking`: a packed weight as numbers again."""

    _fields_ = [
        ("packed", _pointer),
        ("scales", _pointer),
        ("zeros", _pointer),
        ("codebook", _pointer),
        ("out", _pointer),
        ("outputs", _i64),
        ("inputs", _i64),
        ("group_inputs", _i64),
        ("bits", _i32),
        ("type", _i32),
    ]


class CudaInfo(ctypes.Structure):
    """`tk_cuda_info`: what the library and the machine offer."""

    _fields_ = [
        ("built", _i32),
        ("runtime_version", _i32),
        ("driver_version", _i32),
        ("num_devices", _i32),
        ("capability", _i32),
        ("multiprocessors", _i32),
        ("shared_bytes", _i32),
        ("reserved", _i32),
        ("total_bytes", _i64),
        ("free_bytes", _i64),
        ("name", ctypes.c_char * 64),
        ("architectures", ctypes.c_char * 128),
        ("problem", ctypes.c_char * 160),
    ]


class LoadResult(ctypes.Structure):
    """`tk_load_result`."""

    _fields_ = [
        ("rest", _pointer),
        ("rest_bytes", _i64),
        ("names", _pointer),
        ("names_bytes", _i64),
        ("needs_folder", _i64),
        ("numbers", _pointer),
        ("num_numbers", _i64),
    ]
