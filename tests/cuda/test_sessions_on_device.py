# SPDX-License-Identifier: Apache-2.0
"""Sessions on ONNX Runtime's CUDA provider, of every residency, against the plain model's."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import onnxruntime
import pytest

from runtime import InferenceSession
from tests.cuda.device_arrays import REASON
from tests.network_models import network

CUDA = "CUDAExecutionProvider"


def obstacle() -> str:
    """Why no session can run on the GPU; empty where one can."""
    if REASON:
        return REASON
    if CUDA not in onnxruntime.get_available_providers():
        return "this onnxruntime has no CUDA provider"
    plain = network()[1].SerializeToString()
    try:
        session = onnxruntime.InferenceSession(plain, providers=[CUDA])
    except Exception as error:  # whatever ONNX Runtime raises where CUDA's libraries are missing
        return str(error)
    return "" if CUDA in session.get_providers() else "the CUDA provider does not load"


OBSTACLE = obstacle()
pytestmark = pytest.mark.skipif(bool(OBSTACLE), reason=OBSTACLE or "-")
RESIDENCIES: tuple[Any, ...] = ("dense", "packed", "stream")


def x_of(batch: int = 2) -> np.ndarray:
    return np.random.default_rng(batch).normal(size=(batch, 3, 7, 7)).astype(np.float32)


def test_every_residency_computes_what_the_plain_model_does() -> None:
    compressed, plain = network()
    reference = onnxruntime.InferenceSession(plain.SerializeToString(), providers=[CUDA])
    for residency in RESIDENCIES:
        session = InferenceSession(
            compressed.SerializeToString(), providers=[CUDA], residency=residency
        )
        assert session.get_providers()[0] == CUDA
        assert len(session.weights_on_device) == (3 if residency == "dense" else 0)
        for batch in (1, 4, 2):
            wanted = reference.run(None, {"x": x_of(batch)})[0]
            found = session.run(None, {"x": x_of(batch)})[0]
            np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-3)


def test_threads_share_a_session_and_have_their_own() -> None:
    content = network()[0].SerializeToString()
    shared = InferenceSession(content, providers=[CUDA], residency="stream")
    wanted = {n: shared.run(None, {"x": x_of(n)})[0] for n in (1, 2, 3)}
    wrong: list[int] = []

    def work(number: int) -> None:
        own = InferenceSession(content, providers=[CUDA], residency="stream")
        for _ in range(20):
            for session in (shared, own):
                found = session.run(None, {"x": x_of(number)})[0]
                if not np.allclose(found, wanted[number], rtol=1e-3, atol=1e-3):
                    wrong.append(number)

    threads = [threading.Thread(target=work, args=(n,)) for n in (1, 2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_captured_graph_decodes_at_every_replay() -> None:
    content = network()[0].SerializeToString()
    providers = [(CUDA, {"enable_cuda_graph": "1"})]
    session = InferenceSession(content, providers=providers, residency="stream")
    reference = InferenceSession(content, providers=[CUDA], residency="dense")
    x = onnxruntime.OrtValue.ortvalue_from_numpy(x_of(), "cuda", 0)
    y = onnxruntime.OrtValue.ortvalue_from_shape_and_type([2, 6], np.float32, "cuda", 0)
    binding = session.io_binding()
    binding.bind_ortvalue_input("x", x)
    binding.bind_ortvalue_output("y", y)
    for number in range(5):
        value = x_of() * np.float32(number + 1)
        x.update_inplace(value)
        session.run_with_iobinding(binding)
        wanted = reference.run(None, {"x": value})[0]
        np.testing.assert_allclose(y.numpy(), wanted, rtol=1e-3, atol=1e-3)
