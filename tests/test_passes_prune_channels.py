# SPDX-License-Identifier: Apache-2.0
"""Channel pruning: what is coupled, what is left alone, and that what is cut computes the same."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from passes import PruneChannels, SettingsError
from passes.channels import find_channel_groups
from passes.count_macs import count_macs
from tests.channel_models import COUPLINGS, DEAD, Captured, coupled, feeds_of
from tests.passes_models import model_of, normal, proto_of, run

HEAD = '< ir_version: 8, opset_import: ["" : 17] >\n'


def relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def pruned(proto, selection="greedy", fraction=0.25, feeds=None, **options):  # type: ignore[no-untyped-def]
    model = ir.serde.deserialize_model(proto)
    activations = Captured(feeds if feeds is not None else feeds_of(proto))
    result = PruneChannels(selection, fraction, activations=activations, **options)(model)
    return model, result


@pytest.mark.parametrize("name", COUPLINGS)
def test_cutting_equals_silencing(name: str) -> None:
    """Whatever is removed, the cut model computes what the model with silent channels computes."""
    proto = coupled(name)
    feed = feeds_of(proto)[0]
    model, result = pruned(proto, "random", 0.4, reconstruct=False, seed=3)
    assert result.modified and sum(group.num_removed for group in result.groups) >= 2
    assert result.masked is not None
    cut, silent = run(model, feed)["y"], run(result.masked, feed)["y"]
    assert cut.shape == run(proto, feed)["y"].shape
    np.testing.assert_allclose(cut, silent, rtol=1e-4, atol=1e-5)
    assert count_macs(model) < count_macs(ir.serde.deserialize_model(proto))


@pytest.mark.parametrize("name", COUPLINGS)
def test_dead_channels_leave_without_a_trace(name: str) -> None:
    proto = coupled(name, DEAD.get(name, (1, 6)))
    feed = feeds_of(proto)[0]
    fraction = {"split": 1 / 8, "squeeze_excite": {"w1": 0.25}, "grouped_heads": 0.5}.get(
        name, 0.25
    )
    model, result = pruned(proto, "l1", fraction, reconstruct=False)
    assert all(group.num_removed for group in result.groups)
    np.testing.assert_allclose(run(model, feed)["y"], run(proto, feed)["y"], rtol=1e-4, atol=1e-5)


def test_heads_go_whole() -> None:
    proto = coupled("attention")
    model, result = pruned(proto, "l2", {"wq": 0.5}, reconstruct=False)
    (group,) = result.groups
    assert (group.num_channels, group.num_removed) == (4, 2)
    assert set(group.producers) == {"wq", "wk", "wv"}
    for multiple, removed in ((2, [1]), (4, []), (16, [1])):  # a head has two channels
        _, result = pruned(proto, "l2", {"wq": 0.3}, reconstruct=False, multiple_of=multiple)
        assert [group.num_removed for group in result.groups] == removed
    assert model.graph.initializers["wq"].shape == (8, 4)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("fused_split", (8, 12)),
        ("fused_five_axes", (8, 12)),
        ("fused_by_head", (8, 12)),
        ("fused_heads_first", (8, 12)),
        ("grouped_heads", (8, 4)),
    ],
)
def test_heads_of_other_layouts(name: str, shape: tuple[int, int]) -> None:
    """Query, key and value made by one matrix, and key heads that several query heads share."""
    proto, first = coupled(name), "wq" if name == "grouped_heads" else "wqkv"
    model, result = pruned(proto, "random", {first: 0.5}, reconstruct=True)
    (group,) = result.groups
    heads = 2 if name == "grouped_heads" else 4
    assert (group.num_channels, group.num_removed) == (heads, heads // 2)
    assert group.consumers == ("fc_w",)
    assert model.graph.initializers[first].shape == shape
    assert model.graph.initializers["fc_w"].shape == (4, 5)
    feed = feeds_of(proto)[0]
    assert result.masked is not None
    np.testing.assert_allclose(
        run(model, feed)["y"], run(result.masked, feed)["y"], rtol=1e-4, atol=1e-5
    )


ATTEND = """ z = MatMul(qt, kt) zs = Softmax<axis=-1>(z) o = MatMul(zs, vt)
    ot = Transpose<perm=[0,2,1,3]>(o) flat = Constant<value = int64[3] {0, 0, 8}>()
    oj = Reshape(ot, flat) y = MatMul(oj, wo) }"""
UNKNOWN = {
    "sums over heads": """q = MatMul(x, wq) h = Constant<value = int64[4] {0, 0, 4, 2}>()
        qh = Reshape(q, h) qt = Transpose<perm=[0,2,1,3]>(qh) kt = Transpose<perm=[0,1,3,2]>(qt)
        vt = ReduceSum<keepdims=1>(qt, one)""",
    "heads by softmax": """q = MatMul(x, wq) h = Constant<value = int64[4] {0, 0, 4, 2}>()
        qh = Reshape(q, h) q0 = Transpose<perm=[0,2,1,3]>(qh) qt = Softmax<axis=1>(q0)
        kt = Transpose<perm=[0,1,3,2]>(q0) vt = Transpose<perm=[0,2,1,3]>(qh)""",
    "heads picked": """q = MatMul(x, wq) h = Constant<value = int64[4] {0, 0, 4, 2}>()
        qh = Reshape(q, h) qt = Transpose<perm=[0,2,1,3]>(qh)
        order = Constant<value = int64[4] {3,2,1,0}>() kh = Gather<axis=1>(qt, order)
        kt = Transpose<perm=[0,1,3,2]>(kh)
        vt = Transpose<perm=[0,2,1,3]>(qh)""",
    "einsum": """q = MatMul(x, wq) h = Constant<value = int64[4] {0, 0, 4, 2}>()
        qh = Reshape(q, h) qt = Transpose<perm=[0,2,1,3]>(qh)
        kt = Einsum<equation="bhsd->bhds">(qt) vt = Transpose<perm=[0,2,1,3]>(qh)""",
}


@pytest.mark.parametrize("how", UNKNOWN)
def test_attention_that_is_not_understood_stays(how: str) -> None:
    """Nothing is cut, with the reason, and the model computes the same bits."""
    text = f"{HEAD}net (float[N,5,8] x) => (float[N,5,8] y) {{ {UNKNOWN[how]} {ATTEND}"
    tensors = {"wq": normal(8, 8), "wo": normal(8, 8, seed=1), "one": np.array([1])}
    if how != "sums over heads":
        tensors.pop("one")
    proto = proto_of(text, tensors)
    feed = {"x": normal(2, 5, 8, seed=2)}
    model, result = pruned(proto, "l2", 0.5, [feed], reconstruct=False)
    assert not result.groups
    assert {(blocked.name, blocked.num_channels) for blocked in result.blocked} >= {("wo", 8)}
    assert any(blocked.name == "wq" and blocked.reason for blocked in result.blocked)
    np.testing.assert_array_equal(run(model, feed)["y"], run(proto, feed)["y"])


def test_names_and_sizes_after_the_cut() -> None:
    model, _ = pruned(coupled("depthwise"), "l1", 0.25, reconstruct=False)
    shapes = {name: tuple(v.shape.numpy()) for name, v in model.graph.initializers.items()}
    assert shapes["w1"] == (6, 4, 3, 3) and shapes["dw"] == (6, 1, 3, 3)
    assert shapes["fc_w"] == (6, 5) and shapes["fc_b"] == (5,)
    convolutions = [node for node in model.graph if node.op_type == "Conv"]
    assert convolutions[1].attributes["group"].as_int() == 6


@pytest.mark.parametrize(("selection", "limit"), [("greedy", 1e-3), ("lasso", 0.05)])
def test_duplicates_are_made_up_for(selection: str, limit: float) -> None:
    """Four channels twice: half of them can go, if the copies stay and take over. The lasso does
    not care which of two equal channels has the factor, and may rather lose a weak pair."""
    weight, bias = normal(4, 4, 3, 3), normal(4, seed=1)
    proto = coupled("plain", w1=np.concatenate([weight, weight]), b1=np.concatenate([bias, bias]))
    model, result = pruned(proto, selection, 0.5)
    assert result.groups[0].num_removed == 4
    feed = {"x": normal(8, 4, 6, 6, seed=9)}
    assert relative_error(run(model, feed)["y"], run(proto, feed)["y"]) < limit


@pytest.mark.parametrize("name", ["batch_norm", "residual", "flatten", "dense", "shuffle"])
@pytest.mark.parametrize("selection", ["greedy", "lasso", "random"])
def test_reconstruction_helps(name: str, selection: str) -> None:
    proto = coupled(name)
    feeds = feeds_of(proto, 8, 32)
    unseen = feeds_of(proto, 9, 32)[8]
    errors = {}
    for reconstruct in (False, True):
        model, _ = pruned(proto, selection, 0.4, feeds, reconstruct=reconstruct)
        errors[reconstruct] = relative_error(run(model, unseen)["y"], run(proto, unseen)["y"])
    assert errors[True] < errors[False]


def test_constants_that_groups_share_are_cut_for_each() -> None:
    """One bias of zeros for two layers that lose different channels: two biases afterwards."""
    text = (
        HEAD + "net (float[N,4,6,6] x) => (float[N,5] y) { a = Conv(x, w1, zeros) r = Relu(a)"
        " c = Conv(r, w2, zeros) t = Relu(c) p = GlobalAveragePool(t) f = Flatten(p)"
        " y = Gemm(f, fc_w, fc_b) }"
    )
    tensors = {"w1": normal(8, 4, 3, 3), "w2": normal(8, 8, 3, 3, seed=1)}
    tensors |= {"zeros": np.zeros(8, "f"), "fc_w": normal(8, 5), "fc_b": normal(5)}
    tensors["w1"][2] = tensors["w2"][5] = 0
    proto = proto_of(text, tensors)
    model, result = pruned(proto, "l1", 1 / 8, reconstruct=False)
    assert [group.num_removed for group in result.groups] == [1, 1]
    feed = {"x": normal(2, 4, 6, 6)}
    np.testing.assert_allclose(run(model, feed)["y"], run(proto, feed)["y"], rtol=1e-4, atol=1e-5)


def test_a_bias_that_layers_share_is_refitted_for_each() -> None:
    text = (
        HEAD + "net (float[N,4,6,6] x) => (float[N,8,2,2] y) { a = Conv(x, w1, b) r = Relu(a)"
        " c = Conv(r, w2, b) t = Relu(c) y = Conv<strides=[2,2]>(t, w3, b) }"
    )
    tensors = {"w1": normal(8, 4, 3, 3), "w2": normal(8, 8, 1, 1), "w3": normal(8, 8, 1, 1, seed=1)}
    proto = proto_of(text, tensors | {"b": normal(8)})
    model, result = pruned(proto, "random", 0.5)
    biases = [node.inputs[2] for node in model.graph if node.op_type == "Conv"]
    assert [v.shape for v in biases] == [(4,), (4,), (8,)] and len(set(biases)) == 3
    assert not result.notes and all(refit.strength is not None for refit in result.refits)


def test_shared_weights_stay_shared() -> None:
    text = (
        HEAD + "net (float[N,4,6,6] x, float[N,4,6,6] z) => (float[N,5] y) { a = Conv(x, w1, b1)"
        " b = Conv(z, w1, b1) s = Sub(a, b) t = Abs(s) p = GlobalAveragePool(t) f = Flatten(p)"
        " y = Gemm(f, fc_w, fc_b) }"
    )
    tensors = {"w1": normal(8, 4, 3, 3), "b1": normal(8), "fc_w": normal(8, 5), "fc_b": normal(5)}
    model, _ = pruned(proto_of(text, tensors), "l1", 0.5, reconstruct=False)
    assert sorted(model.graph.initializers) == ["b1", "fc_b", "fc_w", "w1"]
    assert model.graph.initializers["w1"].shape[0] == 4


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("c = Conv(x, w1, b1) y = Relu(c)", "output 'y'"),
        ("c = Conv(x, w1, b1) n = LRN<size=3>(c) y = Conv(n, w2, b2)", "mixes channels"),
        ("c = Conv(x, w1, b1) n = Softmax<axis=1>(c) y = Conv(n, w2, b2)", "over channels"),
        ("c = Conv(x, w1, b1) n = ReduceMax<axes=[1]>(c) y = Add(n, n)", "reduces over channels"),
        ("c = Conv(x, w1, b1) n = Add(c, z) y = Conv(n, w2, b2)", "z has fixed channels"),
        ("c = Conv(x, w1, b1) n = CumSum(c, one) y = Conv(n, w2, b2)", "not understood"),
        ("c = Conv(x, w1, b1) n = Gather<axis=1>(c, pick) y = Conv(n, w2, b2)", "picks channels"),
        ("c = Conv(x, w1, b1) s = Shape(c) y0 = Conv(c, w2, b2) k = ReduceProd(s)"
         " kf = Cast<to=1>(k) y = Mul(y0, kf)", "reads the number of channels"),
        ("c = Conv(x, w1, b1) y0 = Conv(c, w2, b2) n = Mul(w1, w1) k = ReduceSum(n)"
         " y = Add(y0, k)", "also used by Mul"),
    ],
)  # fmt: skip
def test_what_is_not_understood_stays_and_says_why(body: str, reason: str) -> None:
    text = HEAD + f"net (float[N,4,6,6] x, float[N,8,4,4] z) => (float y) {{ {body} }}"
    tensors = {"w1": normal(8, 4, 3, 3), "b1": normal(8), "w2": normal(8, 8, 3, 3)}
    tensors |= {"b2": normal(8), "one": np.array(1), "pick": np.arange(8)}
    used = {name: array for name, array in tensors.items() if name in body}
    found = find_channel_groups(model_of(proto_of(text, used)))
    assert not found.groups
    layer = next(entry for entry in found.blocked if entry.name == "w1")
    assert layer.num_channels == 8 and reason in layer.reason


def test_subgraphs_and_computed_weights_block() -> None:
    text = (
        HEAD + "net (float[N,4,6,6] x, bool p) => (float[N,8,4,4] y) { c = Conv(x, w1, b1)"
        " y = If (p) <then_branch = a () => (float u) { u = Relu(c) },"
        " else_branch = b () => (float v) { v = Neg(c) }> }"
    )
    found = find_channel_groups(
        model_of(proto_of(text, {"w1": normal(8, 4, 3, 3), "b1": normal(8)}))
    )
    assert not found.groups and "subgraph" in found.blocked[0].reason


def test_nothing_to_prune_changes_nothing() -> None:
    text = HEAD + "net (float[N,4] x) => (float[N,8] y) { y = MatMul(x, w) }"
    proto = proto_of(text, {"w": normal(4, 8)})
    model, result = pruned(proto, "l2", reconstruct=False)
    assert not result.modified and not result.groups
    assert [node.op_type for node in model.graph] == ["MatMul"]
    np.testing.assert_array_equal(model.graph.initializers["w"].const_value.numpy(), normal(4, 8))


def test_multiple_of_and_patterns() -> None:
    proto = coupled("concat")
    _, result = pruned(proto, "l2", 0.4, reconstruct=False, multiple_of=4)
    assert [group.num_removed for group in result.groups] == [4, 4]
    _, result = pruned(proto, "l2", {"w2*": 0.5, "w*": 0.0}, reconstruct=False)
    assert [(group.name, group.num_removed) for group in result.groups] == [("w2x", 4)]


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"selection": "best"}, "selection 'best'"),
        ({"fraction": 1.0}, "less than 1"),
        ({"fraction": {"w*": -0.1}}, "found -0.1"),
        ({"multiple_of": 0}, "multiple_of"),
        ({"reconstruct": True}, "needs activations"),
        ({"selection": "lasso"}, "needs activations"),
        ({"selection": "greedy", "activations": Captured([])}, "needs activations"),
    ],
)
def test_bad_settings_are_refused(options: dict, text: str) -> None:
    with pytest.raises(SettingsError, match=text):
        PruneChannels(**{"selection": "l1", "reconstruct": False, **options})


def test_a_pattern_that_matches_nothing_is_refused() -> None:
    with pytest.raises(SettingsError, match="'nope'"):
        pruned(coupled("plain"), "l1", {"nope": 0.5}, reconstruct=False)


def test_the_same_seed_gives_the_same_model() -> None:
    proto = coupled("residual")
    first, second = (pruned(proto, "random", 0.5, seed=7)[0] for _ in range(2))
    assert ir.to_proto(first).SerializeToString(deterministic=True) == ir.to_proto(
        second
    ).SerializeToString(deterministic=True)
