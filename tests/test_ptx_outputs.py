# SPDX-License-Identifier: Apache-2.0
"""Every kernel of the decoder with every kind of output, as nvcc compiles them, on the PTX machine:
all outputs of a tensor are parts of one launch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from runtime import WideReader, encode_wide
from runtime.gpu import DeviceDecoder, Request, decode_together
from runtime.gpu_output import Layout, OutputSpec, describe_output, emulate_decode
from tests.ptx.cuda_runtime import PtxDevice

LAYOUTS: tuple[Layout, ...] = ("direct", "paired", "buckets", "global")
ROWS, COLUMNS = 36, 48
WAYS: tuple[tuple[bool, str, bool], ...] = (  # classes, contexts, trellis
    (False, "off", False),
    (False, "on", False),
    (True, "off", False),
    (True, "on", False),
    (True, "on", True),
)


def make_symbols(dtype: Any) -> Any:
    """Values whose spread is that of their column and of the one before."""
    random = np.random.default_rng(1)
    spread = np.exp(1.2 * random.normal(size=COLUMNS)) * 2
    noise = random.laplace(size=(1, ROWS, COLUMNS)) * spread
    for column in range(1, COLUMNS):
        noise[:, :, column] *= 0.3 + np.abs(noise[:, :, column - 1]) / spread[column - 1]
    return np.clip(np.rint(noise), -63, 63).astype(dtype)


def outputs() -> list[tuple[OutputSpec, dict[str, Any]]]:
    """Each kind of output with each form of scales, types of scales and zero points in turn."""
    random = np.random.default_rng(0)
    shape = ROWS, COLUMNS
    found: list[tuple[OutputSpec, dict[str, Any]]] = [(OutputSpec("symbols", shape), {})]
    forms: list[tuple[int, int, tuple[int, ...]]] = [
        (1, 0, ()), (0, 0, (ROWS,)), (1, 0, (COLUMNS,)), (1, 8, (ROWS, COLUMNS // 8)),
    ]  # fmt: skip
    zeros = (None, np.int8, np.int16, np.int32)
    for number, kind in enumerate(("float32", "float16", "bfloat16")):
        for form, (axis, block, scale_shape) in enumerate(forms):
            scales = random.uniform(0.001, 0.1, scale_shape).astype(np.float32)
            given = {"scales": scales if form % 2 else scales.astype(np.float16)}
            if zero_type := zeros[(number + form) % len(zeros)]:
                given["zero_points"] = random.integers(-9, 9, scale_shape).astype(zero_type)
            found.append((OutputSpec(kind, shape, axis, block), given))
    for dtype in (np.float16, np.float32):
        codebook = random.normal(size=320).astype(dtype)
        found.append((OutputSpec("lookup", shape, offset=160), {"codebook": codebook}))
    return found


def request_of(
    device: PtxDevice, reader: WideReader, layout: Layout, spec: OutputSpec, given: dict[str, Any],
    offset: int,
) -> tuple[Request, Any]:  # fmt: skip
    """A request of one output, `offset` bytes behind an aligned place, and what it must come to."""
    wanted = emulate_decode(reader, 0, spec, **given)
    inputs: dict[str, Any] = {}
    for name, array in given.items():
        shape = {"scales": array.shape, "codebook": array.size}.get(name)
        kind = array.itemsize if name == "codebook" else array.dtype.name
        inputs[name] = (device.upload(array), kind, *([] if shape is None else [shape]))
    decoder = DeviceDecoder(reader, 0, layout=layout)
    out = device.allocate(wanted.nbytes, offset)
    return Request(decoder, describe_output(spec, **inputs), out, wanted.nbytes), wanted


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [np.int8, np.int16])
def test_every_kernel_writes_every_kind_of_output(
    ptx_device: PtxDevice, dtype: Any, layout: Layout
) -> None:
    """At places where 16 bytes are written at once and where they cannot be."""
    launched = set()
    for number, (classes, contexts, trellis) in enumerate(WAYS):
        if number in (0, 1, 2) and (dtype == np.int16 or layout in ("buckets", "global")):
            continue  # one kernel for all ways
        symbols = make_symbols(dtype)
        reader = WideReader(
            encode_wide(
                [symbols], steps=COLUMNS, classes=classes, contexts=contexts, trellis=[trellis]
            )
        )
        with ptx_device.in_use(races=number == 3) as device:
            made = [
                request_of(device, reader, layout, spec, given, offset)
                for spec, given in outputs()
                for offset in (0, 4)
            ]
            decode_together([request for request, _ in made])
            for request, wanted in made:
                request.decoder.check_decoded()
                found = device.download(request.address, wanted.dtype, wanted.shape)
                np.testing.assert_array_equal(found.view(np.uint8), wanted.view(np.uint8))
            launched |= {name for name, _ in device.launches}
    kind = f"decode_wideI{'a' if dtype == np.int8 else 's'}LNS0_6LayoutE{LAYOUTS.index(layout)}"
    kernels = {name for name in ptx_device.kernels("wide_kernels") if kind in name}
    assert launched == kernels
