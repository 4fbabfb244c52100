# SPDX-License-Identifier: Apache-2.0
"""Moments of layer inputs: what an error of a weight does to the output, exactly."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from passes.errors import ModelError
from passes.moments import measure, measure_moments
from passes.schemes.moments import MatrixLayout, Moments, RowUse
from passes.select_weights import select_weights
from tests.channel_models import Captured
from tests.passes_models import model_of, normal, proto_of, run

HEAD = '< ir_version: 8, opset_import: ["" : 17] >\n'

# Body from x to y, the shape of x, the shape of the weight w.
LAYERS: dict[str, tuple[str, tuple[int, ...], tuple[int, ...]]] = {
    "matmul": ("y = MatMul(x, w)", (3, 5, 6), (6, 4)),
    "matmul_left": ("y = MatMul(w, x)", (3, 6, 5), (4, 6)),
    "matmul_transposed": ("t = Transpose<perm=[1,0]>(w) y = MatMul(x, t)", (5, 6), (4, 6)),
    "gemm": ("y = Gemm(x, w)", (5, 6), (6, 4)),
    "gemm_transposed": ("y = Gemm<transB=1>(x, w)", (5, 6), (4, 6)),
    "gemm_other_transposed": ("y = Gemm<transA=1>(x, w)", (6, 5), (6, 4)),
    "gemm_left": ("y = Gemm(w, x)", (6, 5), (4, 6)),
    "gemm_left_transposed": ("y = Gemm<transA=1, transB=1>(w, x)", (5, 6), (6, 4)),
    "conv": ("y = Conv<pads=[1,0,1,2], strides=[2,1]>(x, w)", (2, 4, 7, 6), (6, 4, 3, 3)),
    "conv_dilated": ("y = Conv<dilations=[2,2]>(x, w)", (2, 4, 8, 8), (6, 4, 3, 2)),
    "conv_same": ("y = Conv<auto_pad=\"SAME_UPPER\", strides=[2,2]>(x, w)", (2, 4, 7, 8),
                  (6, 4, 3, 4)),
    "conv_groups": ("y = Conv<group=2>(x, w)", (2, 4, 6, 6), (6, 2, 3, 3)),
    "conv_depthwise": ("y = Conv<group=4, pads=[1,1,1,1]>(x, w)", (2, 4, 5, 5), (8, 1, 3, 3)),
    "conv_one_axis": ("y = Conv(x, w)", (2, 4, 9), (6, 4, 3)),
    "conv_moved": ("t = Transpose<perm=[3,2,0,1]>(w) y = Conv(x, t)", (2, 4, 6, 6), (3, 3, 4, 6)),
    "conv_transpose": ("y = ConvTranspose<strides=[2,2]>(x, w)", (2, 4, 3, 3), (4, 5, 2, 2)),
    "conv_transpose_groups": ("y = ConvTranspose<group=2, strides=[2,2]>(x, w)", (2, 4, 3, 3),
                              (4, 5, 2, 2)),
}  # fmt: skip


def text_of(body: str, rank: int, kind: str = "float") -> str:
    axes = ", ".join(f"a{i}" for i in range(rank))
    return f"{HEAD} net ({kind}[{axes}] x) => (float y) {{ {body} }}"


def moments_of(
    proto: onnx.ModelProto, feeds: Sequence[dict[str, np.ndarray]], **options: int
) -> dict[str, Moments | RowUse]:
    model = model_of(proto)
    names = [weight.name for weight in select_weights(model)]
    found: dict[str, Moments | RowUse] = {}
    for part in measure_moments(Captured(feeds), model, names, **options):
        found |= part.found
    return found


def energy(moments: Moments, error: np.ndarray) -> float:
    matrix = moments.layout.matrix(error.astype(np.float64))
    return float(np.einsum("gfo,gfe,geo->", matrix, moments.inputs.astype(np.float64), matrix))


@pytest.mark.parametrize("kind", LAYERS)
def test_energy_of_an_error_in_the_output(kind: str) -> None:
    body, given, shape = LAYERS[kind]
    feeds = [{"x": normal(*given, seed=seed)} for seed in range(3)]
    weight, error = normal(*shape, seed=7), normal(*shape, seed=8)
    before = proto_of(text_of(body, len(given)), {"w": weight})
    after = proto_of(text_of(body, len(given)), {"w": weight + error})
    moments = moments_of(before, feeds)["w"]
    assert isinstance(moments, Moments)
    noise = sum(
        float(np.square(run(after, f, ["y"])["y"] - run(before, f, ["y"])["y"]).sum())
        for f in feeds
    )
    assert energy(moments, error) * moments.count == pytest.approx(noise, rel=1e-4)
    powers = np.einsum("gff->gf", moments.inputs)
    np.testing.assert_allclose(moments.powers, powers, rtol=1e-6)


@pytest.mark.parametrize("kind", LAYERS)
def test_layouts_go_back_and_forth(kind: str) -> None:
    body, given, shape = LAYERS[kind]
    proto = proto_of(text_of(body, len(given)), {"w": normal(*shape)})
    moments = moments_of(proto, [{"x": normal(*given)}])["w"]
    assert isinstance(moments, Moments)
    array = np.arange(np.prod(shape)).reshape(shape)
    matrix = moments.layout.matrix(array)
    assert matrix.shape == moments.layout.matrix_shape
    np.testing.assert_array_equal(moments.layout.array(matrix, shape), array)


def test_means() -> None:
    given = normal(4, 6) + 1
    found = moments_of(
        proto_of(text_of("y = MatMul(x, w)", 2), {"w": normal(6, 4)}), [{"x": given}]
    )
    moments = found["w"]
    assert isinstance(moments, Moments)
    np.testing.assert_allclose(moments.means[0], given.mean(0), rtol=1e-5)


RECURRENT = (
    HEAD
    + """net (float[T,B,4] x, float[{D},B,5] h) => (float y) {{
  y, last = {op}<hidden_size=5, direction="{way}">(x, w, r, , , h) }}"""
)


@pytest.mark.parametrize("op", ["GRU", "LSTM", "RNN"])
@pytest.mark.parametrize("way", ["forward", "reverse", "bidirectional"])
def test_recurrent_layers(op: str, way: str) -> None:
    directions, gates = 1 + (way == "bidirectional"), {"GRU": 3, "LSTM": 4, "RNN": 1}[op]
    proto = proto_of(
        RECURRENT.format(D=directions, op=op, way=way),
        {"w": normal(directions, gates * 5, 4), "r": normal(directions, gates * 5, 5, seed=1)},
    )
    feed = {"x": normal(6, 2, 4), "h": normal(directions, 2, 5)}
    found = moments_of(proto, [feed])
    of_inputs, of_states = found["w"], found["r"]
    assert isinstance(of_inputs, Moments) and isinstance(of_states, Moments)
    rows = feed["x"].reshape(-1, 4)
    states = run(proto, feed, ["y"])["y"]
    for direction in range(directions):
        np.testing.assert_allclose(of_inputs.inputs[direction], rows.T @ rows / 12, rtol=1e-4)
        backward = way == "reverse" or direction == 1
        chain = states[:, direction][:: -1 if backward else 1]
        before = np.concatenate([feed["h"][direction][None], chain[:-1]]).reshape(-1, 5)
        expected = before.T @ before / 12
        np.testing.assert_allclose(of_states.inputs[direction], expected, rtol=1e-4, atol=1e-6)


def test_states_that_are_no_output() -> None:
    text = RECURRENT.replace("(float y)", "(float last)").replace("y, last", ", last")
    proto = proto_of(
        text.format(D=1, op="GRU", way="forward"), {"w": normal(1, 15, 4), "r": normal(1, 15, 5)}
    )
    feed = {"x": normal(6, 2, 4), "h": normal(1, 2, 5)}
    model = model_of(proto)
    found = next(measure_moments(Captured([feed]), model, ["w", "r"]))
    assert set(found.found) == {"w", "r"}
    assert model.graph.node(0).outputs[0].name == ""


TOKENS = (
    HEAD
    + """net (int64[B,S] ids, int64[B,S] attention_mask) => (float y) {
  e = Gather(table, ids) zero = Constant<value = int64[1] {0}>() s = Shape<start=1, end=2>(ids)
  p = Slice(places, zero, s, zero) a = Add(e, p) y = MatMul(a, w) }"""
)


def test_tables_count_their_rows_without_padding() -> None:
    tensors = {"table": normal(9, 64), "places": normal(80, 64), "w": normal(64, 8)}
    ids = np.array([[3, 4, 0], [-1, 3, 5]])
    mask = np.array([[1, 1, 0], [1, 1, 1]])
    feed = {"ids": ids, "attention_mask": mask}
    proto = proto_of(TOKENS, tensors)
    found = moments_of(proto, [feed])
    table, places, layer = (found[name] for name in ("table", "places", "w"))
    assert isinstance(table, RowUse) and isinstance(places, RowUse) and isinstance(layer, Moments)
    np.testing.assert_array_equal(table.counts, [0, 0, 0, 2, 1, 1, 0, 0, 1])
    np.testing.assert_array_equal(places.counts, [1.0] * 3 + [0.0] * 77)
    rows = (tensors["table"][ids] + tensors["places"][:3])[mask != 0]
    np.testing.assert_allclose(layer.inputs[0], rows.T @ rows / 5, rtol=1e-4, atol=1e-5)
    assert layer.count == 5


def test_several_passes_give_what_one_gives() -> None:
    body = "a = MatMul(x, w) b = MatMul(x, v) c = Tanh(a) d = MatMul(c, u) y = Add(b, d)"
    tensors = {name: normal(6, 6, seed=i) for i, name in enumerate("wvu")}
    proto, feeds = proto_of(text_of(body, 2), tensors), [{"x": normal(5, 6, seed=9)}]
    model, steps = model_of(proto), list[tuple[int, int]]()
    parts = list(
        measure_moments(
            Captured(feeds), model, [*"wvu"], max_bytes=1, progress=lambda *at: steps.append(at)
        )
    )
    assert [set(part.found) for part in parts] == [{"w", "v"}, {"u"}]
    assert steps == [(1, 2), (2, 2)]
    whole = moments_of(proto, feeds)
    for part in parts:
        for name, moments in part.found.items():
            other = whole[name]
            assert isinstance(moments, Moments) and isinstance(other, Moments)
            np.testing.assert_array_equal(moments.inputs, other.inputs)


def test_shared_weights_sum_over_their_uses() -> None:
    proto = proto_of(text_of("a = MatMul(x, w) y = MatMul(a, w)", 2), {"w": normal(6, 6)})
    given = normal(5, 6, seed=3)
    moments = moments_of(proto, [{"x": given}])["w"]
    assert isinstance(moments, Moments)
    rows = np.concatenate([given, given @ numpy_helper.to_array(proto.graph.initializer[0])])
    np.testing.assert_allclose(moments.inputs[0], rows.T @ rows / 10, rtol=1e-4)


def test_many_features_have_a_diagonal_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "MAX_FEATURES", 5)
    given = normal(5, 6)
    found = moments_of(
        proto_of(text_of("y = MatMul(x, w)", 2), {"w": normal(6, 4)}), [{"x": given}]
    )
    moments = found["w"]
    assert isinstance(moments, Moments) and not moments.is_full
    np.testing.assert_allclose(moments.powers[0], np.square(given).mean(0), rtol=1e-5)


def test_what_cannot_be_measured_says_why() -> None:
    text = f"""{HEAD} net (float[N,64] x) => (float y) {{
      size = Constant<value = int64[2] {{64, 64}}>() q = Reshape(flat, size)
      a = MatMul(x, q) e = Einsum<equation="nk,km->nm">(a, plain) y = Mul(e, scale) }}"""
    tensors = {"flat": normal(4096), "plain": normal(64, 64), "scale": normal(1, 64)}
    model = model_of(proto_of(text, tensors))
    part = next(measure_moments(Captured([{"x": normal(2, 64)}]), model, ["flat", "plain"]))
    assert not part.found
    assert part.missing == {"flat": "reshaped on its way", "plain": "used by Einsum"}


def test_a_layer_that_no_sample_reaches_is_missing() -> None:
    model = model_of(proto_of(text_of("y = MatMul(x, w)", 2), {"w": normal(6, 4)}))
    part = next(measure_moments(Captured([{"x": np.zeros((0, 6), np.float32)}]), model, ["w"]))
    assert part.missing == {"w": "no calibration sample reached it"}


def test_nan_in_a_layer_is_an_error() -> None:
    proto = proto_of(text_of("y = MatMul(x, w)", 2), {"w": normal(6, 4)})
    with pytest.raises(ModelError, match="x: NaN or infinity"):
        moments_of(proto, [{"x": np.full((2, 6), np.nan, np.float32)}])


def test_shares_of_rows() -> None:
    shares = RowUse(np.array([0.0, 0, 0, 0, 1, 1, 2, 10])).shares()
    assert shares.sum() == pytest.approx(1)
    assert (shares > 0).all() and (np.diff(shares) >= 0).all()
    assert shares[7] < 10 / 14  # what is seen is discounted
    np.testing.assert_allclose(RowUse(np.zeros(4)).shares(), 0.25)
    even = RowUse(np.array([5.0, 5, 0, 10])).shares()  # nothing read once: no sign of unseen rows
    np.testing.assert_allclose(even, [0.25, 0.25, 1 / 256, 0.5])


def test_matrix_layout_of_a_vector_of_matrices() -> None:
    layout = MatrixLayout((0, 1, 2), (2, 3, 4), (0,), (2,), (1,))
    assert layout.matrix_shape == (2, 4, 3)
    array = normal(2, 3, 4)
    np.testing.assert_array_equal(layout.matrix(array), array.transpose(0, 2, 1))
