# SPDX-License-Identifier: Apache-2.0
"""The ops of the library in ONNX Runtime, each against NumPy or against ONNX Runtime's own op."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

import runtime
from runtime.small import encode_small
from tests.decode_models import Array, model, node, symbols, take

FLOATS = [np.float32, np.float16]


def make_session(
    nodes: Sequence[onnx.NodeProto],
    constants: Mapping[str, Array],
    outputs: Sequence[str],
    inputs: Sequence[tuple[str, int, list[Any]]] = (),
    threads: int = 0,
) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    runtime.register(options)
    proto = model(nodes, dict(constants), outputs, inputs)
    return onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"], enable_fallback=0
    )


def run(nodes: Sequence[onnx.NodeProto], constants: Mapping[str, Array], output: str) -> Array:
    return make_session(nodes, constants, [output]).run(None, {})[0]


@pytest.mark.parametrize("dtype", [np.int8, np.int16])
@pytest.mark.parametrize("threads", [1, 2])
def test_decode_wide_and_take_tensor(dtype: Any, threads: int) -> None:
    tensors = [symbols((1, 70, 40), 1, dtype=dtype), symbols((5, 6, 7), 2, dtype=dtype)]
    blob = runtime.encode_wide(tensors, steps=200)
    nodes = [node("DecodeWide16" if dtype == np.int16 else "DecodeWide", ["blob"], ["s"])]
    nodes.append(take(blob, 0, "s", "first", (70, 40)))
    nodes.append(take(blob, 1, "s", "second", (2, 3, 5, 7)))
    session = make_session(nodes, {"blob": blob}, ["s", "first", "second"], threads=threads)
    assert session.get_outputs()[1].shape == [70, 40]
    matrix, first, second = session.run(None, {})
    np.testing.assert_array_equal(matrix, runtime.WideReader(blob).decode_all())
    assert first.dtype == second.dtype == dtype
    np.testing.assert_array_equal(first, tensors[0].reshape(70, 40))
    np.testing.assert_array_equal(second, tensors[1].reshape(2, 3, 5, 7))


@pytest.mark.parametrize("dtype", [np.int8, np.int16])
def test_decode_tensor(dtype: Any) -> None:
    tensors = [symbols((1, 70, 40), 1, dtype=dtype), symbols((5, 6, 7), 2, dtype=dtype)]
    blob = runtime.encode_wide(tensors)
    name = "DecodeTensor16" if dtype == np.int16 else "DecodeTensor"
    nodes = [node(name, ["blob"], ["whole"], tensor=0, shape=[70, 40])]
    nodes.append(node(name, ["blob"], ["part"], tensor=1, shape=[2, 100]))
    whole, part = make_session(nodes, {"blob": blob}, ["whole", "part"]).run(None, {})
    assert whole.dtype == part.dtype == dtype
    np.testing.assert_array_equal(whole, tensors[0].reshape(70, 40))
    np.testing.assert_array_equal(part, tensors[1].reshape(-1)[:200].reshape(2, 100))


def test_a_blob_that_is_no_initializer_is_decoded_at_each_run() -> None:
    session = make_session(
        [node("DecodeWide", ["blob"], ["s"])], {}, ["s"], [("blob", TensorProto.UINT16, ["n"])]
    )
    for seed in (3, 4):
        tensor = symbols((2, 3, 5), seed)
        blob = runtime.encode_wide([tensor])
        matrix = session.run(None, {"blob": blob})[0]
        np.testing.assert_array_equal(matrix, runtime.WideReader(blob).decode_all())
    blob[-1] ^= 1
    with pytest.raises(Exception, match="blob of .* words is refused"):
        session.run(None, {"blob": blob})


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("zero_dtype", [None, np.int8, np.int16])
@pytest.mark.parametrize(
    ("scale_shape", "axis", "block"),
    [((), 1, 0), ((6,), 0, 0), ((10,), 1, 0), ((24,), -1, 0), ((6, 10, 3), 2, 8),
     ((6, 10, 5), 2, 5), ((6, 4, 24), 1, 3), ((2, 10, 24), 0, 3)],
)  # fmt: skip
def test_decode_dequantize_is_dequantize_linear(
    dtype: Any, zero_dtype: Any, scale_shape: tuple[int, ...], axis: int, block: int
) -> None:
    random = np.random.default_rng(5)
    quantised = symbols((6, 10, 24), 6, 9.0, zero_dtype or np.int8)
    blob = runtime.encode_wide([symbols((1, 3, 4), dtype=quantised.dtype), quantised])
    constants: dict[str, Array] = {
        "blob": blob,
        "q": quantised,
        "scale": np.asarray(random.uniform(0.001, 0.1, scale_shape), dtype),
    }
    inputs = ["scale"]
    if zero_dtype is not None:
        constants["zero"] = random.integers(-20, 20, scale_shape).astype(zero_dtype)
        inputs.append("zero")
    settings = {"axis": axis, "block_size": block}
    fused = node(
        "DecodeDequantize", ["blob", *inputs], ["w"], tensor=1, shape=[6, 10, 24], **settings
    )
    plain = helper.make_node("DequantizeLinear", ["q", *inputs], ["p"], **settings)
    session = make_session([fused, plain], constants, ["w", "p"])
    assert session.get_outputs()[0].shape == [6, 10, 24]
    weight, expected = session.run(None, {})
    assert weight.dtype == dtype
    np.testing.assert_array_equal(weight, expected)


@pytest.mark.parametrize("dtype", FLOATS)
def test_decode_lookup(dtype: Any) -> None:
    tensor = symbols((4, 5, 6), 7, 20.0)
    codebook = np.random.default_rng(8).normal(size=256).astype(dtype)
    fused = node("DecodeLookup", ["blob", "codebook"], ["w"], tensor=0, shape=[20, 6], offset=128)
    weight = run([fused], {"blob": runtime.encode_wide([tensor]), "codebook": codebook}, "w")
    assert weight.dtype == dtype
    np.testing.assert_array_equal(weight, codebook[tensor.reshape(20, 6).astype(int) + 128])


def test_a_padded_last_row_is_left_out() -> None:
    tensor = symbols((1, 5, 8), 9)
    blob = runtime.encode_wide([tensor])
    fused = node("DecodeDequantize", ["blob", "scale"], ["w"], tensor=0, shape=[37])
    weight = run([fused], {"blob": blob, "scale": np.float32(0.5)}, "w")
    np.testing.assert_array_equal(weight, tensor.reshape(-1)[:37] * np.float32(0.5))


@pytest.mark.parametrize("coder", ["adaptive", "huffman", "fixed"])
def test_small_coders(coder: Any) -> None:
    stream = symbols((300,), 10, dtype=np.int16)
    decode = node(f"Decode{coder.capitalize()}", ["blob"], ["s"])
    ranges = node("TakeRange", ["s"], ["w"], first=7, shape=[3, 4])
    session = make_session([decode, ranges], {"blob": encode_small(stream, coder)}, ["s", "w"])
    decoded, taken = session.run(None, {})
    np.testing.assert_array_equal(decoded, stream)
    np.testing.assert_array_equal(taken, stream[7:19].reshape(3, 4))


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.uint8])
@pytest.mark.parametrize("shape", [(3, 4), (), (1, 12, 1)])
def test_take_range(dtype: Any, shape: tuple[int, ...]) -> None:
    stream = np.arange(40).astype(dtype)
    taken = run([node("TakeRange", ["x"], ["y"], first=23, shape=list(shape))], {"x": stream}, "y")
    assert taken.dtype == dtype
    np.testing.assert_array_equal(taken, stream[23 : 23 + int(np.prod(shape))].reshape(shape))


@pytest.mark.parametrize(
    ("op", "to", "bits"),
    [
        ("JoinFloat", TensorProto.FLOAT, 32),
        ("JoinHalf", TensorProto.FLOAT16, 16),
        ("JoinHalf", TensorProto.BFLOAT16, 16),
    ],
)
def test_join_gives_every_bit_pattern_back(op: str, to: int, bits: int) -> None:
    random = np.random.default_rng(11)
    word = np.uint32 if bits == 32 else np.uint16
    pattern = random.integers(0, 2**bits, (64, 33), dtype=np.uint64).astype(word)
    if bits == 16:
        pattern.reshape(-1)[:2048] = np.arange(2048) * 32  # infinities and NaNs too
    rotated = (pattern << word(1)) | (pattern >> word(bits - 1))
    planes = [(rotated >> word(shift)).astype(np.uint8) for shift in range(bits - 8, -1, -8)]
    constants: dict[str, Array] = {f"p{i}": plane for i, plane in enumerate(planes)}
    constants["p0"] = (planes[0] ^ np.uint8(128)).view(np.int8)
    session = make_session([node(op, list(constants), ["w"], to=to)], constants, ["w"])
    assert session.get_outputs()[0].shape == [64, 33]
    value = session.run_with_ort_values(["w"], {})[0]
    assert value.element_type() == to
    from runtime.session_options import array_of

    np.testing.assert_array_equal(array_of(value).view(word), pattern)


def test_a_damaged_blob_is_refused_when_the_session_is_made() -> None:
    blob = runtime.encode_wide([symbols((3, 4, 50))])
    blob[blob.size // 2] ^= 4
    for made in (
        node("DecodeWide", ["blob"], ["w"]),
        node("DecodeDequantize", ["blob", "scale"], ["w"], tensor=0, shape=[600]),
    ):
        with pytest.raises(Exception, match=f"{made.name}.*refused.*status 7"):
            make_session([made], {"blob": blob, "scale": np.float32(1)}, ["w"])


@pytest.mark.parametrize("coder", ["adaptive", "huffman", "fixed"])
def test_a_damaged_small_blob_is_refused_when_the_session_is_made(coder: Any) -> None:
    blob = encode_small(symbols((300,), 12, dtype=np.int16), coder)
    blob[-1] ^= 1
    with pytest.raises(Exception, match=r"Decode\w+_w.*refused.*status 7"):
        make_session([node(f"Decode{coder.capitalize()}", ["blob"], ["w"])], {"blob": blob}, ["w"])


@pytest.mark.parametrize(
    ("op", "attributes", "message"),
    [
        ("DecodeDequantize", {"tensor": 1, "shape": [6]}, "tensor 1 of a blob of 1"),
        ("DecodeDequantize", {"tensor": -1, "shape": [6]}, "tensor -1 of a blob of 1"),
        ("DecodeDequantize", {"tensor": 0, "shape": [7]}, "shape has 7 elements"),
        ("DecodeDequantize", {"tensor": 0, "shape": [-1, -6]}, "negative dimension"),
        ("DecodeDequantize", {"tensor": 0, "shape": [2**40, 2**40]}, "too many elements"),
        ("DecodeDequantize", {"tensor": 0}, "'shape' is missing"),
        ("DecodeLookup", {"shape": [6]}, "'tensor' is missing"),
    ],
)
def test_wrong_attributes_are_refused_when_the_session_is_made(
    op: str, attributes: dict[str, Any], message: str
) -> None:
    blob = runtime.encode_wide([symbols((1, 2, 3))])
    with pytest.raises(Exception, match=f"{op}_w.*{message}"):
        make_session(
            [node(op, ["blob", "scale"], ["w"], **attributes)],
            {"blob": blob, "scale": np.ones(1, np.float32)},
            ["w"],
        )


@pytest.mark.parametrize(
    "attributes",
    [
        {"lane": 0, "lanes": 3, "steps": 4, "shape": [12]},
        {"lane": 2, "lanes": 1, "steps": 4, "shape": [4]},
        {"lane": 0, "lanes": 2, "steps": 5, "shape": [10]},
        {"lane": 0, "lanes": 2, "steps": 4, "shape": [9]},
    ],
)
def test_take_tensor_outside_of_the_matrix_is_refused(attributes: dict[str, Any]) -> None:
    taken = node("TakeTensor", ["s"], ["w"], **attributes)
    with pytest.raises(Exception, match="not in a matrix of 2 x 4"):
        run([taken], {"s": np.zeros((2, 4), np.int8)}, "w")


def test_take_range_outside_of_the_stream_is_refused() -> None:
    with pytest.raises(Exception, match="not in a stream of 5"):
        run([node("TakeRange", ["s"], ["w"], first=3, shape=[3])], {"s": np.zeros(5, np.int8)}, "w")


def test_a_symbol_outside_of_the_codebook_is_refused() -> None:
    blob = runtime.encode_wide([np.full((1, 2, 3), 7, np.int8)])
    fused = node("DecodeLookup", ["blob", "codebook"], ["w"], tensor=0, shape=[6], offset=0)
    with pytest.raises(Exception, match="decoding tensor 0"):
        run([fused], {"blob": blob, "codebook": np.zeros(7, np.float32)}, "w")


def test_symbols_of_the_other_width_are_refused() -> None:
    blob = runtime.encode_wide([symbols((1, 2, 3), dtype=np.int16)])
    with pytest.raises(Exception, match="use DecodeWide16"):
        run([node("DecodeWide", ["blob"], ["w"])], {"blob": blob}, "w")


def test_threads_entry_must_be_a_count() -> None:
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("toolkit.threads", "many")
    with pytest.raises(runtime.LibraryError, match="expected a count of threads"):
        runtime.register(options)
