# SPDX-License-Identifier: Apache-2.0
"""What the threads of a launch see of memory: the state spaces of PTX (PTX ISA, chapter 5)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tests.ptx.counters import Counters
from tests.ptx.errors import BadAccessError, PtxError
from tests.ptx.loaded_module import LoadedKernel
from tests.ptx.memory import DeviceMemory, poisoned
from tests.ptx.memory_instructions import WINDOWS
from tests.ptx.races import SharedRaces

Array = np.ndarray[Any, Any]
_MOST_SHARED = 232448  # bytes of a thread block, of devices of compute capability 9.0


class AddressSpaces:
    """Memory of the threads of a launch; blocks of the program load and store here.

    Addresses are int64 [n] in the state space, for the `threads` [n]; `number` is that of the
    instruction in the kernel. Loads give `count` neighbours of `width` bytes.

    Attributes:
        num_threads: all of the launch, and numbers that fill up the last warp of a thread block.
    """

    def __init__(
        self,
        kernel: LoadedKernel,
        memory: DeviceMemory,
        block_of: Array,
        dynamic_shared: int,
        params: bytes,
        counters: Counters | None,
        races: bool,
    ) -> None:
        self._kernel, self._memory, self._counters = kernel, memory, counters
        self._program = kernel.translation.program
        self._block_of = block_of
        self.num_threads = len(block_of)
        blocks = int(block_of[-1]) + 1
        self._shared_bytes = kernel.static_shared + dynamic_shared
        if self._shared_bytes > _MOST_SHARED:
            raise PtxError(f"{kernel.name}: {self._shared_bytes} bytes of shared memory")
        self._stride = -(-self._shared_bytes // 16) * 16 + 16
        self._shared = poisoned(blocks * self._stride, "shared memory")
        self._local_stride = -(-kernel.local_bytes // 16) * 16 + 16
        self._local = poisoned(self.num_threads * self._local_stride, "local memory")
        for memory_of, rows, stride, size in (
            (self._shared, blocks, self._stride, self._shared_bytes),
            (self._local, self.num_threads, self._local_stride, kernel.local_bytes),
        ):
            memory_of.state[: rows * stride].reshape(rows, stride)[:, :size] = 1
        self._shared_first = self._block_of * self._stride
        self._local_first = np.arange(self.num_threads) * self._local_stride
        self._params = np.frombuffer(params, np.uint8)
        self._params_memory = poisoned(len(params), "the parameters")
        self._params_memory.data[: len(params)] = self._params
        self._params_memory.mark(0, len(params), written=True)
        self._races = SharedRaces(blocks * self._stride + 16, self._block_of) if races else None
        self._first_number = memory.races.begin_launch(self.num_threads) if races else 0

    def _fail(self, number: int, threads: Array, place: int, problem: str) -> None:
        thread = int(threads[place])
        padded = self.num_threads // (int(self._block_of[-1]) + 1)
        raise PtxError(
            f"{self._kernel.name}: {self._program.instructions[number].text}: thread"
            f" {thread % padded} of thread block {thread // padded}: {problem}"
        )

    def param(self, offset: int, dtype: Any) -> Any:
        size = np.dtype(dtype).itemsize
        if not 0 <= offset <= len(self._params) - size:
            raise PtxError(f"{self._kernel.name}: parameter at {offset} is none")
        return self._params[offset : offset + size].view(dtype)[0]

    def _checked(
        self, access: Callable[..., Any], number: int, threads: Array, *arguments: Any
    ) -> Any:
        try:
            return access(*arguments)
        except BadAccessError as error:
            self._fail(number, threads, error.place, str(error))

    def _own(self, offset: Array, first: Array, size: int, whole: int, what: str) -> Array:
        """Offsets in the memory of all thread blocks, or threads, of those in one of them."""
        outside = (offset < 0) | (offset > size - whole)
        if np.count_nonzero(outside):
            place = int(np.flatnonzero(outside)[0])
            raise BadAccessError(
                f"{whole} bytes at {int(offset[place]):#x} are outside of {what} of {size} bytes",
                place,
            )
        return offset + first

    def load_global(
        self, address: Array, width: int, count: int, number: int, threads: Array
    ) -> list[Array]:
        if self._counters is not None:
            self._counters.global_access(number, address, width * count, threads)
        offset = address - self._memory.base

        def access() -> list[Array]:
            found = self._memory.bytes.load(offset, width, count)
            if self._races is not None:
                self._memory.races.read(offset, width * count, threads, self._first_number)
            return found

        found: list[Array] = self._checked(access, number, threads)
        return found

    def store_global(
        self, address: Array, width: int, values: Sequence[Array], number: int, threads: Array
    ) -> None:
        """Volatile stores are meant for several threads."""
        whole = width * len(values)
        if self._counters is not None:
            self._counters.global_access(number, address, whole, threads)
        offset = address - self._memory.base
        volatile = "volatile" in self._program.instructions[number].opcode

        def access() -> None:
            self._memory.bytes.store(offset, width, values)
            if self._races is not None and not volatile:
                self._memory.races.write(offset, whole, threads, self._first_number)

        self._checked(access, number, threads)

    def load_shared(
        self, address: Array, width: int, count: int, number: int, threads: Array
    ) -> list[Array]:
        if self._counters is not None:
            self._counters.shared_access(number, address, width * count, threads)

        def access() -> list[Array]:
            at = self._own(address, self._shared_first[threads], self._shared_bytes, width * count,
                           "shared memory")  # fmt: skip
            found = self._shared.load(at, width, count)
            if self._races is not None:
                self._races.read(at, width * count, threads)
            return found

        found: list[Array] = self._checked(access, number, threads)
        return found

    def store_shared(
        self, address: Array, width: int, values: Sequence[Array], number: int, threads: Array
    ) -> None:
        whole = width * len(values)
        if self._counters is not None:
            self._counters.shared_access(number, address, whole, threads)

        def access() -> None:
            at = self._own(address, self._shared_first[threads], self._shared_bytes, whole,
                           "shared memory")  # fmt: skip
            self._shared.store(at, width, values)
            if self._races is not None:
                self._races.write(at, whole, threads)

        self._checked(access, number, threads)

    def load_local(
        self, address: Array, width: int, count: int, number: int, threads: Array
    ) -> list[Array]:
        def access() -> list[Array]:
            at = self._own(address, self._local_first[threads], self._kernel.local_bytes,
                           width * count, "local memory")  # fmt: skip
            return self._local.load(at, width, count)

        found: list[Array] = self._checked(access, number, threads)
        return found

    def store_local(
        self, address: Array, width: int, values: Sequence[Array], number: int, threads: Array
    ) -> None:
        def access() -> None:
            at = self._own(address, self._local_first[threads], self._kernel.local_bytes,
                           width * len(values), "local memory")  # fmt: skip
            self._local.store(at, width, values)

        self._checked(access, number, threads)

    def load_param(
        self, address: Array, width: int, count: int, number: int, threads: Array
    ) -> list[Array]:
        found: list[Array] = self._checked(
            self._params_memory.load, number, threads, address, width, count
        )
        return found

    def _spaces(self, address: Array) -> list[tuple[str, Array, int]]:
        """The state spaces of generic addresses: name, threads concerned, beginning."""
        windows = address >> 56
        found = []
        for name, first in (("global", 0), *WINDOWS.items()):
            chosen = np.flatnonzero(windows == first >> 56)
            if len(chosen):
                found.append((name, chosen, first))
        return found

    def load_generic(
        self, address: Array, width: int, count: int, number: int, threads: Array
    ) -> list[Array]:
        spaces = self._spaces(address)
        results = [np.zeros(len(address), f"u{width}") for _ in range(count)]
        missing = len(address)
        for name, chosen, first in spaces:
            load = getattr(self, f"load_{name}")
            found = load(address[chosen] - first, width, count, number, threads[chosen])
            missing -= len(chosen)
            for result, values in zip(results, found, strict=True):
                result[chosen] = values
        if missing:
            self._fail(number, threads, 0, "an address of no memory")
        return results

    def store_generic(
        self, address: Array, width: int, values: Sequence[Array], number: int, threads: Array
    ) -> None:
        stored = [np.broadcast_to(value, len(address)) for value in values]
        missing = len(address)
        for name, chosen, first in self._spaces(address):
            if name == "param":
                self._fail(number, threads, int(chosen[0]), "parameters are written")
            store = getattr(self, f"store_{name}")
            parts = [value[chosen] for value in stored]
            store(address[chosen] - first, width, parts, number, threads[chosen])
            missing -= len(chosen)
        if missing:
            self._fail(number, threads, 0, "an address of no memory")
