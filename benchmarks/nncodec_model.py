# SPDX-License-Identifier: Apache-2.0
"""Whole models by NNCodec (PyPI `nncodec`): quantised, coded and decoded by its own `compress` and
`decompress`, without its frameworks for training, which need packages that are not used here."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import sys
import types
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

Parameters = Mapping[str, npt.NDArray[np.float32]]

_FRAMEWORKS = ("tensorflow_model", "pytorch_model", "use_case_init")


def _codec() -> Any:
    if importlib.util.find_spec("nncodec") is None:
        raise SystemExit("nncodec is not installed: pip install nncodec")
    if "nncodec.framework" not in sys.modules:
        parent = types.ModuleType("nncodec.framework")
        sys.modules[parent.__name__] = parent
        for name in _FRAMEWORKS:
            module = types.ModuleType(f"{parent.__name__}.{name}")
            sys.modules[module.__name__] = module
            setattr(parent, name, module)
    return importlib.import_module("nncodec.nnc")


def nncodec_file(parameters: Parameters, qp: int, dependent: bool) -> tuple[int, Parameters]:
    """Bytes of NNCodec's bitstream and the parameters that it decodes to.

    `qp` is its quantisation parameter of the weights (larger is coarser), `dependent` whether it
    quantises by its trellis. Its other options are those of its own defaults.
    """
    codec = _codec()
    given = {name: np.ascontiguousarray(array) for name, array in parameters.items()}
    with contextlib.redirect_stdout(io.StringIO()):
        stream = codec.compress(
            given,
            bitstream_path=None,
            qp=qp,
            use_dq=dependent,
            row_skipping=True,
            return_bitstream=True,
        )
        decoded = codec.decompress(stream)
    found = {
        name: np.asarray(decoded[name], np.float32).reshape(array.shape)
        for name, array in parameters.items()
    }
    return len(stream), found
