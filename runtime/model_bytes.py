# SPDX-License-Identifier: Apache-2.0
"""Models as the bytes that ONNX Runtime reads."""

from __future__ import annotations

import onnx

from runtime.errors import ModelError

_MAX_BYTES = 2**31 - 1


def serialize(model: onnx.ModelProto) -> bytes:
    """Serialise a model.

    Raises:
        ModelError: it is larger than protobuf allows.
    """
    if model.ByteSize() > _MAX_BYTES:
        raise ModelError(
            f"the model has {model.ByteSize()} bytes besides its external data, a serialised "
            f"model at most {_MAX_BYTES}: keep its large tensors as external data"
        )
    return bytes(model.SerializeToString())
