# SPDX-License-Identifier: Apache-2.0
"""`doctor`: whether everything that the toolkit needs is there and works."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass
from typing import Any

from toolkit.errors import one_line
from toolkit.versions import versions

CPU_FEATURES = ("sse4_2", "avx2", "bmi2", "f16c", "fma", "avx512f", "avx512bw", "avx512vl", "asimd")


@dataclass
class Finding:
    """One thing looked at: whether it is fine, and what was found."""

    name: str
    good: bool
    detail: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def examine() -> list[Finding]:
    """Looks at versions, ONNX Runtime's providers, the op library, and the processor."""
    found = [Finding(name, True, version) for name, version in versions().items()]
    found.append(Finding("system", True, f"{platform.system()} {platform.machine()}"))
    found.append(_processor())
    found.append(_onnxruntime())
    found.append(_library())
    found.append(_gpu())
    found.append(_round_trip())
    return found


def _processor() -> Finding:
    flags: set[str] = set()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            for line in file:
                if line.lower().startswith(("flags", "features")):
                    flags = set(line.split(":", 1)[1].split())
                    break
    except OSError:
        return Finding("processor", True, f"{os.cpu_count()} cores, features unknown")
    known = [name for name in CPU_FEATURES if name in flags]
    return Finding("processor", True, f"{os.cpu_count()} cores, {' '.join(known) or 'no SIMD'}")


def _onnxruntime() -> Finding:
    try:
        import onnxruntime
    except ImportError as error:
        return Finding("onnxruntime", False, one_line(error))
    providers = ", ".join(
        name.removesuffix("ExecutionProvider") for name in onnxruntime.get_available_providers()
    )
    return Finding("providers", True, f"onnxruntime {onnxruntime.__version__}: {providers}")


def _library() -> Finding:
    try:
        import runtime
        from runtime.wide import best_isa

        return Finding("op library", True, f"{runtime.library_path()}, {best_isa()} kernels")
    except Exception as error:  # anything wrong with it is the finding
        return Finding("op library", False, one_line(error))


def _gpu() -> Finding:
    """The library's CUDA code, the driver and the first device; a machine without them is fine."""
    try:
        from runtime.gpu import examine

        state = examine()
    except Exception as error:  # anything wrong with it is the finding
        return Finding("gpu", False, one_line(error))
    if not state.built:
        return Finding("gpu", True, "none: the op library was built without CUDA, CPU only")
    code = f"CUDA {state.runtime_version // 1000}.{state.runtime_version % 1000 // 10} code"
    code += f" for {state.architectures}"
    if state.problem:
        driver = "no driver" if not state.driver_version else f"driver for {state.driver_version}"
        return Finding("gpu", state.num_devices == 0, f"{code}; {driver}: {state.problem}")
    memory = f"{state.free_bytes / 1e9:.1f} of {state.total_bytes / 1e9:.1f} GB free"
    return Finding("gpu", True, f"{code}; {state.name}, sm_{state.capability}, {memory}")


def _round_trip() -> Finding:
    """Encodes and decodes a little, and registers the ops with a session."""
    try:
        import numpy as np
        import onnxruntime

        import runtime
        from runtime.wide import WideReader, encode_wide

        symbols = np.random.default_rng(0).integers(-20, 20, (1, 64, 64)).astype(np.int8)
        decoded = WideReader(encode_wide([symbols])).decode_tensor(0)
        if not np.array_equal(np.asarray(decoded).reshape(symbols.shape), symbols):
            return Finding("round trip", False, "decoded symbols differ from the encoded ones")
        runtime.register(onnxruntime.SessionOptions())
    except Exception as error:  # anything wrong with it is the finding
        return Finding("round trip", False, one_line(error))
    return Finding("round trip", True, "4,096 symbols encoded and decoded, ops registered")
