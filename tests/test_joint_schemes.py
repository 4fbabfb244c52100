# SPDX-License-Identifier: Apache-2.0
"""Stages that several weights share: one codebook, one budget, one cost of ranks, one scale; as
schemes, as rules of a recipe, and in the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

import runtime
from passes import CleanUp, EncodeWeights, Recipe, SettingsError, WeightSettings, select_weights
from passes.errors import SchemeError
from passes.schemes import (
    Binary,
    Codebook,
    FitContext,
    Lossless,
    LowRank,
    PowerOfTwo,
    Prune,
    Sum,
    Ternary,
    Transform,
    Trellis,
    Uniform,
    factorize_jointly,
    fit_jointly,
    prune_jointly,
)
from passes.stages import SCHEMES
from tests import toolkit_models
from tests.passes_models import model_of, network, normal, portable
from toolkit import recipes
from toolkit.compress_model import compress
from toolkit.errors import InputError

WEIGHTS = {"b": normal(9, 14), "a": normal(8, 4, 3, 3, seed=1) * np.float32(3)}
CPU = ["CPUExecutionProvider"]


def vector(values: dict[str, np.ndarray]) -> np.ndarray:
    return np.concatenate([values[name].reshape(-1) for name in values])


@pytest.mark.parametrize(
    "scheme",
    [
        Codebook(8),
        Uniform(bits=4),
        Uniform(relative_step=0.3, symmetric=False),
        Binary(),
        Ternary(),
        PowerOfTwo(4),
        Prune(fraction=0.2),
        Prune(l1_radius=30.0),
        Sum(parts=(Binary(), Prune(keep=11, inner=Uniform(bits=8)))),
    ],
    ids=lambda scheme: type(scheme).__name__,
)
def test_sharing_is_one_vector(scheme: Any) -> None:
    found = fit_jointly(scheme, {type(scheme)}, WEIGHTS)
    assert list(found) == list(WEIGHTS)
    for name, weight in WEIGHTS.items():
        assert found[name].shape == weight.shape and found[name].dtype == weight.dtype
    whole = scheme.fit(vector(WEIGHTS)).decode()
    np.testing.assert_array_equal(vector({n: p.decode() for n, p in found.items()}), whole)


def test_masks_and_importance_go_along() -> None:
    contexts = {"b": FitContext(mask=WEIGHTS["b"] > 0), "a": FitContext(importance=np.float64(4))}
    found = fit_jointly(Ternary(), {Ternary}, WEIGHTS, contexts)
    assert not found["b"].decode()[WEIGHTS["b"] <= 0].any()
    alone = fit_jointly(Ternary(), {Ternary}, WEIGHTS)
    assert found["a"].scale != alone["a"].scale  # type: ignore[attr-defined]


def test_what_is_behind_a_shared_stage_is_of_each_weight_unless_it_is_shared_too() -> None:
    scheme = Prune(fraction=0.25, inner=Codebook(6))
    total = sum(weight.size for weight in WEIGHTS.values())
    budget = fit_jointly(scheme, {Prune}, WEIGHTS)
    both = fit_jointly(scheme, {Prune, Codebook}, WEIGHTS)
    expected = prune_jointly(WEIGHTS, scheme)
    for name in WEIGHTS:
        np.testing.assert_array_equal(budget[name].decode(), expected[name].decode())
        np.testing.assert_array_equal(both[name].mask, budget[name].mask)  # type: ignore[attr-defined]
    assert sum(np.count_nonzero(p.decode()) for p in both.values()) == round(total / 4)
    books = [p.inner.codebook for p in both.values()]  # type: ignore[attr-defined]
    assert books[0].size == 6 and 0.0 in books[0]
    np.testing.assert_array_equal(books[0], books[1])
    own = [p.inner.codebook for p in budget.values()]  # type: ignore[attr-defined]
    assert not np.array_equal(own[0], own[1])


def test_a_shared_stage_behind_one_of_each_weight() -> None:
    """One budget over the coefficients of two transforms, of different shapes."""
    scheme = Transform(kind="dct", inner=Prune(keep=60, inner=Uniform(bits=8)))
    found = fit_jointly(scheme, {Prune}, WEIGHTS)
    kept = [int(p.inner.mask.sum()) for p in found.values()]  # type: ignore[attr-defined]
    assert sum(kept) == 60 and min(kept) < max(kept)
    alone = {name: scheme.fit(weight) for name, weight in WEIGHTS.items()}
    assert all(p.inner.mask.sum() == 60 for p in alone.values())  # type: ignore[attr-defined]


def test_one_cost_of_ranks() -> None:
    weights = {"strong": 5 * normal(20, 10), "weak": normal(30, 10, seed=1)}
    scheme = LowRank(fraction=0.6, inner=Uniform(bits=8))
    found = fit_jointly(scheme, {LowRank}, weights)
    spent = sum(p.rank * sum(p.shape) for p in found.values())  # type: ignore[attr-defined]
    assert 260 < spent <= 300 and found["strong"].rank > found["weak"].rank  # type: ignore[attr-defined]
    alpha = LowRank(alpha=0.4)
    for name, fitted in factorize_jointly(weights, alpha).items():
        assert fitted.rank == alpha.fit(weights[name]).rank
    alone = LowRank(fraction=0.6).fit(weights["weak"])
    assert alone.rank == int(0.6 * 300 / 40)
    assert LowRank(budget=119).fit(weights["weak"]).rank == 2
    flops = LowRank(budget=1200, cost="flops")
    assert flops.fit(weights["weak"], FitContext(positions=10)).rank == 3


@pytest.mark.parametrize(
    ("scheme", "shared", "text"),
    [
        (LowRank(rank=2), {LowRank}, "budget, fraction or alpha"),
        (LowRank(rank=2, inner=Codebook(4)), {Codebook}, "behind LowRank cannot be shared"),
        (Trellis(bits=4), {Trellis}, "Trellis cannot be shared"),
        (Uniform(bits=4, granularity="row"), {Uniform}, "one scale only"),
        (Sum(parts=(LowRank(rank=1),)), {Sum}, "no two sides"),
    ],
)
def test_what_cannot_be_shared(scheme: Any, shared: set[type], text: str) -> None:
    with pytest.raises(SchemeError, match=text):
        fit_jointly(scheme, shared, WEIGHTS)


def test_errors_name_the_weight_and_types_must_agree() -> None:
    with pytest.raises(SchemeError, match="^bad: "):
        fit_jointly(Uniform(bits=4), (), {"bad": np.full(3, np.nan, np.float32)})
    halves = {"a": normal(4), "b": normal(4).astype(np.float16)}
    with pytest.raises(SchemeError, match="one type, found float16 and float32"):
        fit_jointly(Binary(), {Binary}, halves)
    assert fit_jointly(Prune(keep=3), {Prune}, {}) == {}


CODEBOOKS = """\
version: 1
rules:
  - op_type: Conv
    role: weight
    settings: {stages: [{codebook: {entries: 12}}], joint: [codebook]}
  - {role: weight, settings: {stages: [{codebook: {entries: 12}}], joint: [codebook]}}
"""


def settled(text: str) -> dict[str, WeightSettings]:
    return Recipe.parse(text).assign(select_weights(model_of(network())))


def test_a_rule_shares_one_codebook_which_the_file_holds_once() -> None:
    model = model_of(network())
    arrays = {n: v.const_value.numpy() for n, v in model.graph.initializers.items()}
    EncodeWeights(settled(CODEBOOKS))(model)
    CleanUp()(model)
    books = [v for v in model.graph.initializers.values() if v.shape == ir.Shape((12,))]
    stored = [v.const_value.numpy() for v in books if v.const_value.dtype == ir.DataType.FLOAT]
    together = Codebook(12).fit_joint({n: arrays[n] for n in ("gemm_w", "matmul_w")})
    expected = [Codebook(12).fit(arrays["conv_w"]).codebook, together["gemm_w"].codebook]
    assert sorted(b.tobytes() for b in stored) == sorted(b.tobytes() for b in expected)


def test_equal_settings_of_two_rules_are_two_groups() -> None:
    plan = settled(CODEBOOKS)
    assert plan["conv_w"].group_key != plan["gemm_w"].group_key == plan["matmul_w"].group_key
    by_hand = WeightSettings(scheme="codebook", entries=4, joint=("codebook",))
    assert by_hand.group_key == WeightSettings(**json.loads(by_hand.model_dump_json())).group_key


def test_what_is_not_finite_is_in_no_group() -> None:
    proto = network()
    broken = onnx.numpy_helper.to_array(proto.graph.initializer[2]).copy()
    broken[0, 0] = np.inf
    proto.graph.initializer[2].CopyFrom(onnx.numpy_helper.from_array(broken, "gemm_w"))
    model = model_of(proto)
    result = EncodeWeights(settled(CODEBOOKS))(model)
    assert any("gemm_w: coded losslessly" in note for note in result.notes)
    schemes = {row.name: row.scheme for row in result.encoded}
    assert schemes["matmul_w"] == "codebook" and schemes["gemm_w"] == "lossless"


def test_a_group_that_cannot_be_fitted() -> None:
    text = "version: 1\ndefault: {stages: [{points: {values: [1e39]}}], joint: [points]}\n"
    model = model_of(network())
    result = EncodeWeights(settled(text))(model)
    (note,) = [n for n in result.notes if "jointly" in n]
    assert note.startswith("weights conv_w and 2 more, fitted jointly: points: float32")
    assert all(row.scheme == "lossless" for row in result.encoded)


@pytest.mark.parametrize("name", ["lc-joint-codebook", "lc-joint-pruning", "lc-joint-rank"])
def test_ready_recipes_in_three_ways(name: str, tmp_path: Path) -> None:
    path, small = toolkit_models.mlp(tmp_path / "m.onnx", width=160), tmp_path / "s.onnx"
    report = compress(path, small, recipe=name, portable="never")
    assert report.written
    model = ir.serde.deserialize_model(onnx.load(small))
    data = ir.serde.serialize_model(portable(model)).SerializeToString()
    x = {"x": normal(5, 64)}
    sessions = [
        runtime.InferenceSession(data, providers=CPU),
        runtime.InferenceSession(data, providers=CPU, mode="stream"),
        onnxruntime.InferenceSession(data, providers=CPU),
    ]
    load, stream, stock = (session.run(None, x)[0] for session in sessions)
    np.testing.assert_allclose(stream, load, atol=2e-5)
    np.testing.assert_allclose(stock, load, atol=2e-5)
    stored = json.loads(onnx.load(small).metadata_props[0].value)["recipe"]
    assert Recipe.parse(json.dumps(stored)).model_dump() == recipes.read(name).model_dump()


def test_ranks_count_multiplications_of_the_graph(tmp_path: Path) -> None:
    """Of two equal convolutions the one that runs at fewer positions keeps more ranks."""
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((16, 16, 3, 3))
    nodes = [
        onnx.helper.make_node("Conv", ["x", "wide"], ["h"], pads=[1] * 4),
        onnx.helper.make_node("Conv", ["h", "narrow"], ["y"], strides=[4, 4]),
    ]
    kind = onnx.TensorProto.FLOAT
    path = toolkit_models.save(
        tmp_path / "m.onnx",
        nodes,
        {"wide": weight, "narrow": weight},
        [("x", kind, ["n", 16, 18, 18])],
        [("y", kind, ["n", 16, 4, 4])],
    )
    text = """
version: 1
default:
  stages: [{low_rank: {fraction: 0.4, cost: flops}}, {uniform: {bits: 8}}]
  joint: [low_rank]
"""
    recipe = tmp_path / "r.yaml"
    recipe.write_text(text)
    report = compress(path, tmp_path / "s.onnx", recipe=recipe)
    before, after = report.notes[0].split(": kept as factors: ")[0], report.notes
    assert before and report.written, after
    sizes = {row.name: row.num_elements for row in report.tensors}
    assert sum(n for k, n in sizes.items() if k.startswith("narrow")) > 2 * sum(
        n for k, n in sizes.items() if k.startswith("wide")
    )


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ("{bits: 4, joint: [codebook]}", "joint: codebook is no stage here, there are uniform"),
        ("{scheme: keep, joint: [prune]}", "scheme keep fits nothing"),
        ("{bits: 4, joint: codebook}", "joint: Input should be a valid tuple"),
        ("{bits: 4, granularity: row, joint: [uniform]}", "takes no granularity"),
        ("{stages: [{low_rank: {rank: 3}}], joint: [low_rank]}", "budget, fraction or alpha"),
        ("{stages: [{low_rank: {rank: 3}}, codebook], joint: [codebook]}", "behind low_rank"),
        ("{stages: [{trellis: {bits: 4}}], joint: [trellis]}", "'trellis' cannot be shared"),
        ("{stages: [{low_rank: {fraction: 2}}]}", "fraction must be 0 to 1"),
        ("{stages: [{low_rank: {rank: 2, relative: true}}]}", "relative goes with budget"),
        ("{stages: [{low_rank: {rank: 2, cost: bits}}]}", "cost bits goes with alpha"),
    ],
)
def test_mistakes_name_the_line(settings: str, text: str) -> None:
    with pytest.raises(SettingsError, match="^r:3: rules.0.settings") as found:
        Recipe.parse(f"version: 1\nrules:\n  - settings: {settings}\n", source="r")
    assert text in str(found.value) and "\n" not in str(found.value)


def test_mistakes_of_a_group_change_nothing(tmp_path: Path) -> None:
    path, recipe = toolkit_models.mlp(tmp_path / "m.onnx"), tmp_path / "r.yaml"
    recipe.write_text(
        "version: 1\ndefault: {stages: [{prune: {fraction: 0.5, granularity: kernel}}], "
        "joint: [prune]}\n"
    )
    with pytest.raises(InputError, match="weights A and 1 more, fitted jointly: A: prune: .*kern"):
        compress(path, tmp_path / "s.onnx", recipe=recipe)
    assert not (tmp_path / "s.onnx").exists()


def test_schema_lists_what_can_be_shared() -> None:
    schema = json.loads(recipes.schema())["$defs"]["WeightSettings"]["properties"]["joint"]
    names = schema["items"]["enum"]
    assert {"prune", "codebook", "low_rank", "uniform"} <= set(names) < set(SCHEMES)
    assert Lossless not in {SCHEMES[name] for name in names}
