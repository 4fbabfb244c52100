# SPDX-License-Identifier: Apache-2.0
"""Choosing a transform: taken where neighbours resemble each other, else left out."""

from __future__ import annotations

import numpy as np
import pytest

from passes import CleanUp, EncodeWeights, model_to_proto
from passes.errors import SchemeError
from passes.schemes import (
    AutoTransform,
    Codebook,
    FitContext,
    Parameters,
    Transform,
    TransformParameters,
    Uniform,
    UniformParameters,
)
from passes.schemes.coded_bits import coded_bits
from passes.schemes.transform_cost import graph_bytes
from passes.schemes.transform_sensitivity import frequency_sensitivity, toeplitz
from tests.passes_models import model_of, normal, proto_of

KINDS = ("dct", "haar")


def encoded_bytes(weight: np.ndarray, fitted: Parameters) -> int:
    """Bytes of a file with nothing but this weight."""
    dims = ",".join(map(str, weight.shape))
    text = f'< ir_version: 8, opset_import: ["" : 17]> g (float[{dims}] x) => (float[{dims}] y) '
    model = model_of(proto_of(text + "{ y = Add (x, w) }", {"w": weight}))
    EncodeWeights({"w": fitted})(model)
    CleanUp()(model)
    return len(model_to_proto(model).SerializeToString())


def smooth(*shape: int) -> np.ndarray:
    """Running sums along the last axis."""
    walk = np.cumsum(normal(*shape), axis=-1)
    return walk - walk.mean(axis=-1, keepdims=True)


def test_a_smooth_weight_is_transformed() -> None:
    weight, scheme = smooth(32, 32, 32), AutoTransform(Uniform(relative_step=0.3), KINDS)
    decision = scheme.decide(weight)
    assert decision.choice == "dct" and decision.text.startswith("dct: dct ")
    fitted, plain = scheme.fit(weight), Uniform(relative_step=0.3).fit(weight)
    assert isinstance(fitted, TransformParameters) and fitted.kind == "dct"
    assert coded_bits(fitted) < 0.9 * coded_bits(plain)
    errors = [np.square(p.decode() - weight).sum() for p in (fitted, plain)]
    assert errors[0] <= 1.01 * errors[1]


def test_a_sparse_or_white_weight_is_left_alone() -> None:
    sparse = normal(64, 16, 16) * (np.random.default_rng(1).random((64, 16, 16)) < 0.05)
    scheme = AutoTransform(Uniform(relative_step=0.3), KINDS)
    for weight in (sparse.astype(np.float32), normal(64, 16, 16)):
        decision = scheme.decide(weight)
        assert decision.choice is None and decision.text.startswith("no transform: ")
        assert isinstance(scheme.fit(weight), UniformParameters)
    assert "%" in scheme.decide(sparse).text


def test_degenerate_weights_are_left_alone() -> None:
    scheme = AutoTransform(Uniform(bits=4), KINDS)
    for weight in (np.zeros((3, 4), np.float32), np.ones(1, np.float32), np.float32(2).reshape(())):
        assert isinstance(scheme.fit(weight), UniformParameters)
        assert scheme.decide(weight).text


def test_a_quantiser_without_a_step_is_compared_too() -> None:
    weight = np.cumsum(smooth(64, 64, 32), axis=-1)
    for quantiser in (Codebook(16), Uniform(bits=4)):
        choice = AutoTransform(quantiser, KINDS).decide(weight).choice
        assert choice is not None and choice.startswith("dct")


def test_a_weight_too_small_for_the_nodes_is_left_alone() -> None:
    """The symbols of this one would be fewer, and its file larger."""
    weight, scheme = smooth(8, 8, 16), AutoTransform(Uniform(relative_step=0.3), ("dct",))
    transformed = Transform("dct", inner=Uniform(relative_step=0.3)).fit(weight)
    assert coded_bits(transformed) < 0.97 * coded_bits(Uniform(relative_step=0.3).fit(weight))
    assert scheme.decide(weight).choice is None
    files = [encoded_bytes(weight, s.fit(weight)) for s in (scheme, Uniform(relative_step=0.3))]
    assert files[0] == files[1] < encoded_bytes(weight, transformed)


@pytest.mark.parametrize("kind", ["dct", "dst", "dft", "haar", "db2", "db20", "bior4.4"])
@pytest.mark.parametrize("shape", [(16, 16, 8), (8, 16, 15), (8, 8, 64), (16, 16, 3, 3)], ids=str)
def test_nodes_take_no_more_than_is_charged(kind: str, shape: tuple[int, ...]) -> None:
    weight, quantiser = smooth(*shape), Uniform(relative_step=0.3)
    plain, transformed = quantiser.fit(weight), Transform(kind, inner=quantiser).fit(weight)
    symbols = (coded_bits(transformed) - coded_bits(plain)) / 8
    more = encoded_bytes(weight, transformed) - encoded_bytes(weight, plain) - symbols
    charged = graph_bytes(kind, transformed.folding.sizes, None)
    assert 0.3 * charged < more <= charged


def test_all_of_a_large_weight_must_gain() -> None:
    """A part decides which transform is best; here it is the only part where one pays."""
    sparse = normal(64, 128, 128) * (np.random.default_rng(2).random((64, 128, 128)) < 0.05)
    weight = sparse.astype(np.float32)
    weight[::4] = smooth(16, 128, 128)
    scheme = AutoTransform(Uniform(step=1.0), ("dct",))
    assert scheme.decide(np.ascontiguousarray(weight[::4])).choice == "dct"
    decision = scheme.decide(weight)
    assert decision.choice is None and decision.bits["dct"] > decision.plain_bits
    assert isinstance(scheme.fit(weight), UniformParameters)


@pytest.mark.parametrize(("noise", "said"), [(0.0, "exact without"), (0.01, "at equal error")])
def test_a_weight_on_the_grid_is_left_alone(noise: float, said: str) -> None:
    """The quantiser alone makes no error, or hardly one: at the same step a transform makes many
    times that of it, though it takes fewer bits."""
    weight = np.rint(smooth(64, 64, 32)) + noise * normal(64, 64, 32)
    scheme, step = AutoTransform(Uniform(step=1.0), KINDS), Uniform(step=1.0)
    transformed = Transform("dct", inner=step).fit(weight)
    assert coded_bits(transformed) < 0.95 * coded_bits(step.fit(weight))
    decision = scheme.decide(weight.astype(np.float32))
    assert decision.choice is None and said in decision.text


def test_a_window_is_transformed_in_blocks() -> None:
    """Taps that never met data are small: one transform over all of them would mix them in."""
    window = np.zeros(64, np.float32)
    window[16:32] = 1
    weight = np.zeros((64, 64, 64), np.float32)
    weight[:, :, 16:32] = smooth(64, 64, 16)
    decision = AutoTransform(Uniform(relative_step=0.3), ("dct",)).decide(weight)
    assert decision.choice == "dct/16"
    fitted = AutoTransform(Uniform(relative_step=0.3), ("dct",)).fit(weight)
    assert not fitted.decode()[:, :, window == 0].any()


def test_steps_follow_the_autocorrelation() -> None:
    lags = 0.9 ** np.arange(32)
    scheme = AutoTransform(Uniform(relative_step=1.0), KINDS, autocorrelation=tuple(lags))
    weight = normal(64, 32, 32)
    decision = scheme.decide(weight)
    assert decision.choice == "dct"  # though the weight is white
    fitted, plain = scheme.fit(weight), Uniform(relative_step=1.0).fit(weight)
    errors = [(p.decode() - weight).reshape(-1, 32).astype(np.float64) for p in (fitted, plain)]
    weighted = [float(np.vdot(e, e @ toeplitz(lags))) for e in errors]
    assert weighted[0] <= 1.01 * weighted[1] and coded_bits(fitted) < 0.9 * coded_bits(plain)


@pytest.mark.parametrize("step", [0.05, 0.3, 1.0])
def test_whatever_the_inputs_are_a_transform_adds_no_error(step: float) -> None:
    """Unknown inputs may be smooth: a step made coarser until the squared error of the weight is
    the same would put more error at low frequencies."""
    weight = smooth(64, 32, 32)
    fitted = AutoTransform(Uniform(relative_step=step), KINDS).fit(weight)
    plain = Uniform(relative_step=step).fit(weight)
    assert isinstance(fitted, TransformParameters)
    assert coded_bits(fitted) < 0.95 * coded_bits(plain)
    assert isinstance(fitted.inner, UniformParameters)
    np.testing.assert_allclose(fitted.inner.scale, plain.scale, rtol=1e-3)
    errors = [(p.decode() - weight).reshape(-1, 32).astype(np.float64) for p in (fitted, plain)]
    for correlation in (0.99, 0.9, 0.5, 0.0, -0.5, -0.9):
        gram = toeplitz(correlation ** np.arange(32.0))
        ours, theirs = (float(np.vdot(e, e @ gram)) for e in errors)
        assert ours < 1.05 * theirs, correlation


def test_sensitivity_is_the_power_of_the_response() -> None:
    lags = 0.8 ** np.arange(8)
    power = frequency_sensitivity("dct", 8, None, toeplitz(lags))
    assert np.isclose(power.sum(), 8) and (np.diff(power) < 0).all()
    assert (frequency_sensitivity("haar", 8, None, None) == 1).all()


def test_importance_and_large_weights() -> None:
    weight = smooth(600, 16, 64)
    context = FitContext(importance=np.linspace(1, 2, 600).reshape(-1, 1, 1))
    assert (
        AutoTransform(Uniform(relative_step=0.5), ("dct",)).decide(weight, context).choice == "dct"
    )


def test_what_was_decided_is_said() -> None:
    remarks: list[str] = []
    scheme = AutoTransform(Uniform(relative_step=0.3), KINDS)
    scheme.fit(smooth(32, 32, 32), FitContext(remarks=remarks))
    scheme.fit(normal(32, 32, 32), FitContext(remarks=remarks))
    assert len(remarks) == 2
    assert remarks[0].startswith("dct") and remarks[1].startswith("no transform")


def test_an_axis_too_long_for_one_transform_is_cut() -> None:
    decision = AutoTransform(Uniform(relative_step=0.3), ("dct",)).decide(smooth(4, 4096))
    assert list(decision.bits) == ["dct/16"]
    assert AutoTransform(Uniform(bits=4), ("dct",), blocks=(0,)).decide(smooth(2, 4096)).bits == {}


def test_wrong_options() -> None:
    with pytest.raises(SchemeError, match="give kinds"):
        AutoTransform(Uniform(bits=4), ())
    with pytest.raises(SchemeError, match="inner"):
        AutoTransform()
    with pytest.raises(SchemeError, match="kind 'cosine'"):
        AutoTransform(Uniform(bits=4), ("cosine",))
    scheme = AutoTransform(Uniform(bits=4), autocorrelation=(1.0, 0.5))
    with pytest.raises(SchemeError, match="2 lags"):
        scheme.fit(normal(4, 8))
