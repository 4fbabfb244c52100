# SPDX-License-Identifier: Apache-2.0
"""Fitted schemes as forms: the weight is what they decode to, and they are what is stored."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

import toolkit.nn as tnn  # noqa: E402
from passes.errors import SchemeError  # noqa: E402
from passes.schemes import Codebook  # noqa: E402


def test_given_parameters_are_the_weight_and_what_is_stored() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(40, 30), nn.Linear(30, 4))
    fitted = Codebook(entries=4).fit(model[0].weight.detach().numpy())
    plain = tnn.compressed_bytes(model)
    tnn.attach_given(model, {"0.weight": fitted})
    for mode in (True, False):
        model.train(mode)
        np.testing.assert_array_equal(model[0].weight.detach().numpy(), fitted.decode())
    assert tnn.fitted_parameters(model) == {"0.weight": fitted}
    assert tnn.compressed_bytes(model) < plain - 4 * 40 * 30 + 40 * 30 / 4 + 100
    assert float(tnn.rate_bits(model)) < 2.5 * 40 * 30


def test_parameters_of_another_model_are_refused() -> None:
    model = nn.Sequential(nn.Linear(4, 3))
    fitted = Codebook(entries=2).fit(np.zeros((3, 5), np.float32))
    with pytest.raises(SchemeError, match=r"0.weight: expected a parameter of \(3, 5\), found"):
        tnn.attach_given(model, {"0.weight": fitted})
    with pytest.raises(SchemeError, match="1.weight: .* found none"):
        tnn.attach_given(model, {"1.weight": fitted})
