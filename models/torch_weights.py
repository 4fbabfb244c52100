# SPDX-License-Identifier: Apache-2.0
"""Reads the tensors of a torch checkpoint as NumPy arrays."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt


def read_torch_weights(content: bytes) -> dict[str, npt.NDArray[Any]]:
    """Tensors of a state dictionary by name. Only weights are unpickled, never other objects.

    Raises `ImportError` without torch and `pickle.UnpicklingError` for anything but weights.
    """
    import torch

    state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    return {name: np.asarray(tensor.detach().numpy()) for name, tensor in state.items()}
