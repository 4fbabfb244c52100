# SPDX-License-Identifier: Apache-2.0
"""How many channels each group loses, and what few samples must not decide."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir
import pytest

from passes import PruneChannels, SchemeError, SettingsError
from passes.channels import find_channel_groups
from passes.channels.greedy_refit import best_ridge, greedy_refit_removal, refit_problem
from passes.channels.layer_moments import LayerMoments
from passes.channels.layer_samples import MatrixLayer, matrix_layer
from tests.channel_models import Captured
from tests.passes_models import model_of, normal, proto_of, run

HEAD = '< ir_version: 8, opset_import: ["" : 17] >\n'


def two_layers() -> onnx.ModelProto:
    """16 channels of which half give next to nothing, then 16 that all matter."""
    text = (
        HEAD + "net (float[N,4,6,6] x) => (float[N,5] y) { a = Conv(x, w1, b1) r = Relu(a)"
        " c = Conv(r, w2, b2) t = Relu(c) p = GlobalAveragePool(t) f = Flatten(p)"
        " y = Gemm(f, fc_w, fc_b) }"
    )
    tensors = {"w1": normal(16, 4, 3, 3), "b1": normal(16, seed=1)}
    tensors["w1"][::2] *= 1e-3
    tensors["b1"][::2] *= 1e-3
    tensors |= {"w2": normal(16, 16, 3, 3, seed=2), "b2": normal(16, seed=3)}
    return proto_of(text, tensors | {"fc_w": normal(16, 5), "fc_b": normal(5)})


def feeds(count: int = 4) -> list[dict[str, np.ndarray]]:
    return [{"x": normal(16, 4, 6, 6, seed=20 + i)} for i in range(count)]


def pruned(allocation: str, selection: str, data: list) -> tuple[dict[str, int], float]:
    """Channels that go by group, and the error on unseen inputs."""
    proto = two_layers()
    model = model_of(proto)
    pruning = PruneChannels(selection, 0.25, allocation=allocation, activations=Captured(data))
    result = pruning(model)
    unseen = {"x": normal(32, 4, 6, 6, seed=99)}
    found, wanted = run(model, unseen)["y"], run(proto, unseen)["y"]
    error = float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))
    return {group.name: group.num_removed for group in result.groups}, error


@pytest.mark.parametrize("selection", ["greedy", "lasso"])
@pytest.mark.parametrize("count", [1, 3, 4])
def test_channels_go_where_the_outputs_do_not_miss_them(selection: str, count: int) -> None:
    equal, error = pruned("equal", selection, feeds(count))
    assert equal == {"w1": 4, "w2": 4}
    counts, less = pruned("sensitivity", selection, feeds(count))
    assert sum(counts.values()) == 8 and counts["w1"] >= 7
    assert less < 0.7 * error


def test_groups_that_are_to_stay_stay_and_weights_come_back() -> None:
    model = model_of(two_layers())
    before = {name: value.const_value.numpy() for name, value in model.graph.initializers.items()}
    pruning = PruneChannels(
        "l2",
        {"w2": 0.5},
        allocation="sensitivity",
        activations=Captured(feeds()),
        reconstruct=False,
    )
    result = pruning(model)
    assert [(group.name, group.num_removed) for group in result.groups] == [("w2", 8)]
    after = {name: value.const_value.numpy() for name, value in model.graph.initializers.items()}
    np.testing.assert_array_equal(after["w1"], before["w1"])
    kept = [row for row in before["w2"] if any(np.array_equal(row, r) for r in after["w2"])]
    assert len(kept) == len(after["w2"]) == 8  # nothing that was tried is left


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(SettingsError, match="allocation 'best': expected one of equal, sens"):
        PruneChannels("l2", allocation="best", reconstruct=False)
    with pytest.raises(SettingsError, match="allocation 'sensitivity' needs activations"):
        PruneChannels("l2", allocation="sensitivity", reconstruct=False)
    text = HEAD + "net (float[N,4,6,6] x) => (int64[N,1,4,4] y) { a = Conv(x, w1) c = Conv(a, w2)"
    proto = proto_of(
        text + " y = ArgMax<axis=1>(c) }",
        {"w1": normal(8, 4, 3, 3), "w2": normal(8, 8, 1, 1)},
    )
    options = {"allocation": "sensitivity", "activations": Captured(feeds(1))}
    with pytest.raises(SettingsError, match="needs an output of floats"):
        PruneChannels("l2", {"w1": 0.5}, reconstruct=False, **options)(model_of(proto))
    lost = Captured([{"x": np.full((2, 4, 6, 6), np.inf, np.float32)}])
    with pytest.raises(SchemeError, match="not finite"):
        PruneChannels("l2", reconstruct=False, allocation="sensitivity", activations=lost)(
            model_of(two_layers())
        )


def moments_of(rows: int, seed: int) -> tuple[LayerMoments, MatrixLayer, np.ndarray]:
    """Of a layer with 24 inputs of which the first 8 are hardly ever seen but matter most."""
    text = HEAD + "net (float[N,6] x) => (float[N,16] y) { a = MatMul(x, w1) y = MatMul(a, w2) }"
    weight = normal(24, 16)
    weight[:8] *= 4
    model: ir.Model = model_of(proto_of(text, {"w1": normal(6, 24), "w2": weight}))
    found = find_channel_groups(model)
    layer = matrix_layer(found.groups[0].consumers[0])
    assert layer is not None
    generator = np.random.default_rng(seed)
    inputs = generator.standard_normal((rows, 24))
    inputs[:, :8] *= generator.random((rows, 8)) < 0.1
    moments = LayerMoments(layer)
    moments.add(inputs, inputs @ weight, np.arange(rows) * 2 // rows)
    return moments, layer, found.number


def test_a_ridge_keeps_channels_that_few_samples_show() -> None:
    """From few rows many channels look superfluous; what was left out of the fit tells when a
    stronger ridge chooses better. Judged by the error of leaving the channels out, on all inputs
    that there could be."""
    errors: dict[str, list[float]] = {"least": [], "chosen": []}
    for seed in range(12):
        moments, layer, number = moments_of(32, seed)
        channels, kept = number[layer.feature_labels], [np.ones(24, bool)]
        ridge = best_ridge([moments], kept, channels, number, 8)
        power, weight = np.array([0.1] * 8 + [1.0] * 16), layer.matrix()
        for name, value in (("least", 1e-3), ("chosen", ridge)):
            problem = refit_problem(moments, kept[0], channels, number, value)
            assert problem is not None
            gone = greedy_refit_removal([problem], 8)
            errors[name].append(float((power[gone] @ np.square(weight[gone])).sum()))
    assert np.mean(errors["chosen"]) < 0.95 * np.mean(errors["least"])


def test_the_least_ridge_serves_where_there_is_data() -> None:
    moments, layer, number = moments_of(4000, 0)
    channels = number[layer.feature_labels]
    assert best_ridge([moments], [np.ones(24, bool)], channels, number, 8) == 1e-3
