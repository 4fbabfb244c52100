# SPDX-License-Identifier: Apache-2.0
"""The library's CUDA code on the PTX machine: its host code as it is, its kernels as PTX."""

from __future__ import annotations

import contextlib
import ctypes
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from runtime import library
from tests.ptx.compiled_kernels import ARCHITECTURES, KERNELS, LIBRARY, load_module
from tests.ptx.counters import Counters
from tests.ptx.errors import PtxError
from tests.ptx.loaded_module import LoadedKernel, LoadedModule
from tests.ptx.machine import Launch
from tests.ptx.memory import DeviceMemory
from tests.ptx.parser import Module

Array = np.ndarray[Any, Any]
_FAILED = 719  # cudaErrorLaunchFailure
_INVALID = 1  # cudaErrorInvalidValue
_TO_DEVICE, _TO_HOST, _WITHIN = 1, 2, 3  # of cudaMemcpyKind
_DEFAULT_SHARED = 49152  # bytes that a kernel may have without asking for more
_ATTRIBUTES = {16: "multiprocessors", 97: "shared_bytes", 1: "block_threads"}  # cudaDeviceAttr
_pointer, _size = ctypes.c_void_p, ctypes.c_size_t
_FUNCTIONS: dict[str, Any] = {
    "allocate": ctypes.CFUNCTYPE(_pointer, _size),
    "free": ctypes.CFUNCTYPE(None, _pointer),
    "copy": ctypes.CFUNCTYPE(ctypes.c_int, _pointer, _pointer, _size, ctypes.c_int),
    "set": ctypes.CFUNCTYPE(ctypes.c_int, _pointer, ctypes.c_int, _size),
    "attribute": ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int),
    "launch": ctypes.CFUNCTYPE(
        ctypes.c_int, ctypes.c_char_p, ctypes.POINTER(ctypes.c_uint), _size,
        ctypes.POINTER(_pointer),
    ),
    "allow_shared": ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_char_p, ctypes.c_int),
}  # fmt: skip


class PtxDevice:
    """A device for the library's own host code.

    Args:
        folder: what `compile_once` has made.

    Attributes:
        path: of the library of the host's code.
        memory: of the device.
        launches: names of the kernels that have run since `in_use`, with their grid and thread
            block.
        counters: of these launches, where they are counted.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / LIBRARY
        self.block_threads = 1024
        self.memory = DeviceMemory()
        self.launches: list[tuple[str, tuple[int, ...]]] = []
        self.counters: list[tuple[str, Counters]] | None = None
        self._held: list[int] = []
        self._load_module = functools.partial(load_module, folder)
        self._modules: dict[tuple[str, int], LoadedModule] = {}
        self._allowed: dict[str, int] = {}
        self._failure: BaseException | None = None
        self._library = ctypes.CDLL(str(self.path))
        for name, (result, arguments) in library._SIGNATURES.items():
            function = getattr(self._library, name)
            function.restype, function.argtypes = result, arguments
        table = type("Table", (ctypes.Structure,), {"_fields_": list(_FUNCTIONS.items())})
        self._table = table(**{
            name: kind(self._guarded(getattr(self, f"_{name}"), name))
            for name, kind in _FUNCTIONS.items()
        })  # fmt: skip
        self._library.ptx_set_device(ctypes.byref(self._table))

    @contextlib.contextmanager
    def in_use(
        self,
        *,
        architecture: int = ARCHITECTURES[0],
        multiprocessors: int = 2,
        shared_bytes: int = 232448,
        races: bool = False,
        order: int | None = None,
        count: bool = False,
    ) -> Iterator[PtxDevice]:
        """Have the package call this device's library. What was uploaded is given back at the end.

        Args:
            architecture: whose PTX is run.
            multiprocessors: few, so that grids are small.
            shared_bytes: of a thread block.
            races: look for races in shared and global memory, too.
            order: of threads that may go on, random ones of a seed; None: the earliest.
            count: fill `counters`.

        Raises:
            PtxError: at the end, what a kernel did that it must not; the library sees a failed
                launch.
        """
        self.architecture, self.multiprocessors = architecture, multiprocessors
        self.shared_bytes, self.races, self.counters = shared_bytes, races, [] if count else None
        self.launches, self.order = [], order
        before = library.load
        library.load = lambda: self._library  # type: ignore[assignment]
        self._failure = None
        try:
            yield self
        except Exception as error:
            if self._failure is not None:
                raise self._failure from error
            raise
        finally:
            library.load = before
            for address in self._held:
                self.memory.free(address)
            self._held.clear()
        if self._failure is not None:
            raise self._failure

    @contextlib.contextmanager
    def without(self, opcode: str) -> Iterator[None]:
        """Leave out all instructions of an opcode, such as "bar.sync", to see what misses them."""
        before, load = self._modules, self._load_module

        def load_without(name: str, architecture: int) -> Module:
            module = load(name, architecture)
            for function in module.functions.values():
                function.body = [
                    item
                    for item in function.body
                    if isinstance(item, str) or ".".join(item.opcode) != opcode
                ]
            return module

        self._modules, self._load_module = {}, load_without
        try:
            yield
        finally:
            self._modules, self._load_module = before, load

    def _guarded(self, function: Callable[..., Any], name: str) -> Callable[..., Any]:
        """Exceptions cannot pass the library's code: they are kept, and the call fails."""

        def call(*arguments: Any) -> Any:
            try:
                return function(*arguments)
            except MemoryError:
                return None
            except BaseException as error:
                self._failure = self._failure or error
                return None if name in ("allocate", "free") else _FAILED

        return call

    def _allocate(self, size: int) -> int:
        return self.memory.allocate(size)

    def _free(self, address: int) -> None:
        self.memory.free(address)

    def _copy(self, to: int, source: int, size: int, kind: int) -> int:
        if kind == _TO_DEVICE:
            self.memory.put(to, ctypes.string_at(source, size))
        elif kind == _TO_HOST:
            ctypes.memmove(to, self.memory.get(source, size).ctypes.data, size)
        elif kind == _WITHIN:
            if not self.memory.is_written(source, size):
                raise PtxError(f"of {size} bytes at {source:#x} some are copied without a value")
            self.memory.put(to, self.memory.get(source, size))
        else:
            return _INVALID
        return 0

    def _set(self, address: int, value: int, size: int) -> int:
        self.memory.put(address, np.full(size, value, np.uint8))
        return 0

    def _attribute(self, number: int) -> int:
        return int(getattr(self, _ATTRIBUTES[number])) if number in _ATTRIBUTES else -1

    def _allow_shared(self, kernel: bytes, size: int) -> int:
        if size > self.shared_bytes:
            return _INVALID
        self._allowed[kernel.decode()] = size
        return 0

    def _module(self, file: str) -> LoadedModule:
        key = file, self.architecture
        if key not in self._modules:
            self._modules[key] = LoadedModule(self._load_module(*key), self.memory)
        return self._modules[key]

    def kernels(self, file: str) -> list[str]:
        """The names of a file's kernels."""
        functions = self._module(file).module.functions.values()
        return [function.name for function in functions if function.is_kernel]

    def _kernel(self, name: str) -> LoadedKernel:
        for file in KERNELS:
            module = self._module(file)
            if name in module.module.functions:
                return module.kernel(name)
        raise PtxError(f"there is no kernel {name!r}")

    def _launch(self, name_bytes: bytes, shape: Any, shared_bytes: int, arguments: Any) -> int:
        name = name_bytes.decode()
        kernel = self._kernel(name)
        params = bytearray(kernel.param_bytes)
        for number, param in enumerate(kernel.params):
            at = kernel.param_places[param.name]
            params[at : at + param.size] = ctypes.string_at(arguments[number], param.size)
        self.launch(name, tuple(shape[0:3]), tuple(shape[3:6]), bytes(params), shared_bytes)
        return 0

    def launch(
        self,
        name: str,
        grid: tuple[int, int, int],
        block: tuple[int, int, int],
        params: bytes,
        shared_bytes: int = 0,
    ) -> None:
        """Run a kernel to its end.

        Raises:
            PtxError: it did what it must not.
        """
        kernel = self._kernel(name)
        allowed = self._allowed.get(name, _DEFAULT_SHARED)
        if shared_bytes + kernel.static_shared > allowed:
            raise PtxError(f"{name}: {shared_bytes} bytes of shared memory, allowed {allowed}")
        counters = None
        if self.counters is not None:
            counters = Counters(kernel.translation.program)
            self.counters.append((name, counters))
        Launch(kernel, self.memory, grid, block, shared_bytes, params, counters, self.races,
               self.order).run()  # fmt: skip
        self.launches.append((name, (*grid, *block)))

    def allocate(self, size: int, offset: int = 0) -> int:
        """The address of new bytes without values, `offset` behind a multiple of 256."""
        self._held.append(self.memory.allocate(size + offset))
        return self._held[-1] + offset

    def upload(self, array: Array, offset: int = 0) -> int:
        """The address of a copy of an array, `offset` behind a multiple of 256."""
        address = self.allocate(array.nbytes, offset)
        self.memory.put(address, np.ascontiguousarray(array))
        return address

    def download(self, address: int, dtype: Any, shape: tuple[int, ...]) -> Array:
        """A copy of what lies at an address, all of which must have been written.

        Raises:
            PtxError: a byte has no value.
        """
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        if not self.memory.is_written(address, size):
            raise PtxError(f"of {size} bytes at {address:#x} some were never written")
        return self.memory.get(address, size).view(dtype).reshape(shape)
