# SPDX-License-Identifier: Apache-2.0
"""State trees: what a checkpoint holds comes back as it was, without pickle."""

from __future__ import annotations

import json
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch

from passes.schemes import (
    Binary,
    Codebook,
    FitContext,
    LowRank,
    Prune,
    RateAware,
    Scaled,
    Scheme,
    Sum,
    Ternary,
    Transform,
    Trellis,
    Tucker,
    Uniform,
)
from toolkit.errors import InputError
from toolkit.train.random_state import random_state, seed_everything, set_random_state
from toolkit.train.state_tree import flattened, restored

SCHEMES: list[Any] = [
    Uniform(bits=4, granularity="row"),
    Uniform(bits=3, scaling="linear", granularity="bucket", group_size=7),
    Codebook(entries=5),
    Binary(),
    Ternary(),
    Trellis(relative_step=0.2),
    RateAware(beta=1e-3),
    Scaled(Codebook(entries=4), granularity="bucket", group_size=16),
    Prune(fraction=0.3, inner=Codebook(entries=4)),
    LowRank(rank=2, inner=Uniform(bits=6)),
    Tucker(ranks=(2, 3)),
    Sum((Binary(), Prune(keep=5))),
    Transform(kind="dct", block=4, inner=Uniform(bits=5)),
    Transform(kind="dft", rate=4),
]


def there_and_back(state: Any) -> Any:
    tree, tensors = flattened(state)
    return restored(json.loads(json.dumps(tree)), tensors)


def test_plain_values_and_tensors() -> None:
    state = {
        "numbers": [1, 2.5, float("inf"), None, True, "text"],
        "nested": {"a": (torch.arange(3), {"b": torch.zeros(())})},
        3: torch.ones(2, dtype=torch.bfloat16),
        "array": np.arange(6, dtype=np.int16).reshape(2, 3),
        "half": np.array([1.5, 2.5], ml_dtypes.bfloat16),
        "scalar": np.float32(0.1),
        "empty": {},
    }
    found = there_and_back(state)
    assert found["numbers"] == state["numbers"] and found["empty"] == {}
    assert isinstance(found["nested"]["a"], tuple)
    assert torch.equal(found["nested"]["a"][0], torch.arange(3))
    assert torch.equal(found[3], state[3]) and found[3].dtype == torch.bfloat16
    np.testing.assert_array_equal(found["array"], state["array"])
    assert found["half"].dtype == ml_dtypes.bfloat16 and found["half"][1] == 2.5
    assert found["scalar"] == np.float32(0.1) and found["scalar"].dtype == np.float32
    shared = torch.arange(4)
    tree, tensors = flattened({"a": shared, "b": shared[::2]})
    assert torch.equal(restored(tree, tensors)["b"], torch.tensor([0, 2]))


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: type(scheme).__name__)
@pytest.mark.parametrize("dtype", [np.float32, ml_dtypes.bfloat16])
def test_parameters_of_schemes(scheme: Scheme, dtype: Any) -> None:
    weight = np.random.default_rng(0).normal(0, 1, (12, 8)).astype(dtype)
    if isinstance(scheme, Transform | Tucker):
        weight = weight.reshape(3, 4, 4, 2) if isinstance(scheme, Tucker) else weight
    context = FitContext(channel_axis=0)
    fitted = scheme.fit(weight, context)
    found = there_and_back({"theta": fitted})["theta"]
    assert type(found) is type(fitted) and found.dtype == fitted.dtype
    np.testing.assert_array_equal(found.decode(), fitted.decode())
    assert found.bits() == fitted.bits()
    again = scheme.fit(weight, FitContext(channel_axis=0, previous=found))
    expected = scheme.fit(weight, FitContext(channel_axis=0, previous=fitted))
    np.testing.assert_array_equal(again.decode(), expected.decode())


@pytest.mark.parametrize(
    "tree",
    [
        {"$class": "Popen", "fields": {"$map": []}},
        {"$class": "UniformParameters", "fields": {"$map": [["wrong", 1]]}},
        {"$tensor": "missing"},
        {"$map": 3},
        {"unknown": 1},
    ],
)
def test_damaged_trees_are_one_error(tree: Any) -> None:
    with pytest.raises(InputError, match="damaged"):
        restored(tree, {})


def test_what_cannot_be_held() -> None:
    with pytest.raises(TypeError, match="a.b: a checkpoint cannot hold a set"):
        flattened({"a": {"b": set()}})


def test_random_states_go_on() -> None:
    import random

    def draws() -> list[float]:
        return [random.gauss(0, 1), float(np.random.normal()), float(torch.randn(()))]

    seed_everything(3)
    draws()
    state = json.loads(json.dumps(random_state()))
    expected = draws()
    seed_everything(5)
    set_random_state(state)
    assert draws() == expected
    seed_everything(3, rank=1)
    other = draws()
    seed_everything(3, rank=0)
    assert draws() != other
