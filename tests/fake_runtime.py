# SPDX-License-Identifier: Apache-2.0
"""A stand-in for ONNX Runtime's C API, just enough to make and run one custom op of the library.

It runs the kernels that the library registers for the CUDA provider where ONNX Runtime has none:
tensors are addresses, in the host's or a device's memory; outputs, scratch memory and the
provider's own operators come from the caller.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnxruntime

from runtime.library import library_path, register

_p, _size = ctypes.c_void_p, ctypes.c_size_t
_THREADS = b"1021"  # ops are made once for each count of threads: none shares it with a session
_NUM_SLOTS = 300
_FIELDS = """CreateKernel GetName GetExecutionProviderType GetInputType GetInputTypeCount
GetOutputType GetOutputTypeCount KernelCompute KernelDestroy GetInputCharacteristic
GetOutputCharacteristic GetInputMemoryType GetVariadicInputMinArity GetVariadicInputHomogeneity
GetVariadicOutputMinArity GetVariadicOutputHomogeneity CreateKernelV2 KernelComputeV2
InferOutputShapeFn GetStartVersion GetEndVersion GetMayInplace ReleaseMayInplace GetAliasMap
ReleaseAliasMap"""


class CustomOp(ctypes.Structure):
    """`OrtCustomOp`: the version, then 25 functions."""

    _fields_ = [("version", ctypes.c_uint32), *((name, _p) for name in _FIELDS.split())]


@dataclasses.dataclass
class Tensor:
    """A tensor that a kernel sees: ONNX's number of its type, its shape, where its data lies."""

    element_type: int
    shape: tuple[int, ...]
    address: int
    release: Callable[[int], None] | None = None  # of memory that is the tensor's own


@dataclasses.dataclass
class Node:
    """What a kernel is made of: attributes, the inputs that are constant, the types of the others;
    and the provider's allocator, which raises MemoryError where there is not enough."""

    attributes: Mapping[str, Any]
    constants: Mapping[int, Tensor]
    types: Mapping[int, int] = dataclasses.field(default_factory=dict)
    allocate: Callable[[int], int] = lambda num_bytes: 0
    free: Callable[[int], None] = lambda address: None

    def type_of(self, index: int) -> int | None:
        constant = self.constants.get(index)
        return constant.element_type if constant is not None else self.types.get(index)


@dataclasses.dataclass
class Operator:
    """An operator of the provider that a kernel made."""

    name: str
    version: int
    element_type: int
    attributes: dict[str, Any]


@dataclasses.dataclass
class Run:
    """What a kernel runs on. `allocate(shape)` gives the address of the output, `scratch(bytes)`
    that of scratch memory on the CPU; `invoke(operator, inputs, output)` runs an operator of the
    provider."""

    inputs: Sequence[Tensor | None]
    allocate: Callable[[tuple[int, ...]], int]
    stream: int = 0
    shape: tuple[int, ...] = ()
    scratch: Callable[[int], int] | None = None
    free: Callable[[int], None] | None = None  # on the CPU, where tensors own their memory
    invoke: Callable[[Operator, list[Tensor], Tensor], None] | None = None


class RefusedError(Exception):
    """A status that the library returned."""


class FakeRuntime:
    """The table of functions; objects are handed out by number."""

    def __init__(self) -> None:
        self._objects: dict[int, Any] = {}
        self._next = 1 << 20
        self.ops: dict[tuple[str, str], CustomOp] = {}
        self._held: list[Any] = []
        self._table = (_p * _NUM_SLOTS)()
        self._install()
        get_api = ctypes.CFUNCTYPE(_p, ctypes.c_uint32)(lambda _: ctypes.addressof(self._table))
        version = ctypes.create_string_buffer(b"1.17.0")
        get_version = ctypes.CFUNCTYPE(_p)(lambda: ctypes.addressof(version))
        self._base = (_p * 2)(ctypes.cast(get_api, _p), ctypes.cast(get_version, _p))
        self._held += [get_api, get_version, version]

    def register(self, path: str | Path) -> None:
        """Have a library use this runtime. It makes its ops the first time only."""
        library = ctypes.CDLL(str(path))
        library.RegisterCustomOps.restype = _p
        library.RegisterCustomOps.argtypes = [_p, _p]
        self._raise(library.RegisterCustomOps(1, ctypes.addressof(self._base)))

    def number(self, value: Any) -> int:
        self._next += 1
        self._objects[self._next] = value
        return self._next

    def _raise(self, status: int | None) -> None:
        if status:
            raise RefusedError(self._objects.pop(status)[1].value.decode())

    def _install(self) -> None:
        def slot(index: int, result: Any, *arguments: Any) -> Callable[[Any], None]:
            def put(function: Any) -> None:
                made = ctypes.CFUNCTYPE(result, *arguments)(function)
                self._held.append(made)
                self._table[index] = ctypes.cast(made, _p).value

            return put

        def write(address: int, kind: Any, value: Any) -> None:
            kind.from_address(address).value = value

        def done(*_: Any) -> None:
            return None

        i32, i64, text = ctypes.c_int, ctypes.c_int64, ctypes.c_char_p

        def create_status(code: int, message: bytes) -> int:
            return self.number((code, ctypes.create_string_buffer(message)))

        def failed() -> int:
            return create_status(1, b"absent")

        slot(0, _p, i32, text)(create_status)
        slot(2, _p, _p)(lambda status: ctypes.addressof(self._objects[status][1]))
        slot(93, None, _p)(lambda status: self._objects.pop(status, None) and None)
        slot(26, _p, text, _p)(lambda _, out: write(out, _p, self.number("domain")))
        slot(28, _p, _p, _p)(done)
        slot(101, None, _p)(done)

        @slot(27, _p, _p, _p)
        def _add(_domain: int, op: int) -> None:
            made = CustomOp.from_address(op)
            name = ctypes.CFUNCTYPE(text, _p)(made.GetName)(op)
            provider = ctypes.CFUNCTYPE(text, _p)(made.GetExecutionProviderType)(op)
            self.ops[name.decode(), provider.decode() if provider else ""] = made

        slot(237, _p, _p, text, _p)(lambda _o, _k, out: write(out, i32, 1))

        @slot(238, _p, _p, text, _p, _p)
        def _entry(_options: int, _key: bytes, value: int, size: int) -> None:
            ctypes.memmove(value, _THREADS + b"\0", len(_THREADS) + 1)
            write(size, _size, len(_THREADS) + 1)

        @slot(86, _p, _p, text, _p)
        def _integer(node: int, name: bytes, out: int) -> int | None:
            value = self._objects[node].attributes.get(name.decode())
            if not isinstance(value, int):
                return failed()
            return write(out, i64, value)

        @slot(163, _p, _p, text, _p, _p)
        def _integers(node: int, name: bytes, out: int | None, count: int) -> int | None:
            values = self._objects[node].attributes.get(name.decode())
            if not isinstance(values, list | tuple):
                return failed()
            if out:
                ctypes.memmove(out, (i64 * len(values))(*values), 8 * len(values))
            return write(count, _size, len(values))

        @slot(244, _p, _p, _p, _p)
        def _name(_node: int, out: int | None, size: int) -> None:
            if out:
                ctypes.memmove(out, b"node\0", 5)
            write(size, _size, 5)

        @slot(249, _p, _p, _size, _p, _p)
        def _constant(node: int, index: int, is_constant: int, out: int) -> None:
            tensor = self._objects[node].constants.get(index)
            write(is_constant, i32, int(tensor is not None))
            write(out, _p, self.number(tensor) if tensor is not None else None)

        slot(88, _p, _p, _p)(lambda run, out: write(out, _size, len(self._objects[run].inputs)))

        @slot(90, _p, _p, _size, _p)
        def _input(run: int, index: int, out: int) -> None:
            tensor = self._objects[run].inputs[index]
            write(out, _p, self.number(tensor) if tensor is not None else None)

        @slot(91, _p, _p, _size, _p, _size, _p)
        def _output(run: int, _index: int, dims: int, rank: int, out: int) -> None:
            shape = tuple((i64 * rank).from_address(dims)) if rank else ()
            self._objects[run].shape = shape
            tensor = Tensor(0, shape, self._objects[run].allocate(shape))
            write(out, _p, self.number(tensor))

        slot(51, _p, _p, _p)(lambda t, out: write(out, _p, self._objects[t].address))
        slot(65, _p, _p, _p)(lambda t, out: write(out, _p, t))
        slot(60, _p, _p, _p)(lambda t, out: write(out, i32, self._objects[t].element_type))
        slot(61, _p, _p, _p)(lambda t, out: write(out, _size, len(self._objects[t].shape)))

        @slot(62, _p, _p, _p, _size)
        def _dimensions(tensor: int, out: int, rank: int) -> None:
            ctypes.memmove(out, (i64 * rank)(*self._objects[tensor].shape), 8 * rank)

        slot(99, None, _p)(done)
        self._install_operators(slot, write, failed)
        slot(193, _p, _p, _p)(lambda run, out: write(out, _p, self._objects[run].stream))

    def _install_operators(self, slot: Any, write: Any, failed: Any) -> None:
        """Scratch memory, and operators of the provider."""
        i32, i64, text = ctypes.c_int, ctypes.c_int64, ctypes.c_char_p
        kinds = {1: i64, 2: i64, 3: ctypes.c_float}  # of attributes: integer, integers, float

        slot(55, _p, _p, _p)(lambda info, out: write(out, _p, info))
        for release in (98, 132, 212, 215):
            slot(release, None, _p)(lambda *_: None)
        slot(69, _p, i32, i32, _p)(lambda _a, _m, out: write(out, _p, self.number("memory")))
        slot(94, None, _p)(lambda memory: self._objects.pop(memory, None) and None)
        slot(253, _p, _p, _p, _p)(lambda run, _, out: write(out, _p, run))

        @slot(96, None, _p)
        def _release(value: int) -> None:
            tensor = self._objects.pop(value, None)
            if tensor is not None and tensor.release is not None:
                tensor.release(tensor.address)

        @slot(48, _p, _p, _p, _size, i32, _p)
        def _own_tensor(run: int, dims: int, rank: int, kind: int, out: int) -> None:
            shape = tuple((i64 * rank).from_address(dims))
            what = self._objects[run]
            address = what.scratch(math.prod(shape) * {1: 4, 10: 2}[kind])
            write(out, _p, self.number(Tensor(kind, shape, address, what.free)))

        @slot(234, _p, _p, _size, _p)
        def _type(node: int, index: int, out: int) -> int | None:
            element_type = self._objects[node].type_of(index)
            if element_type is None:
                return failed()
            return write(out, _p, self.number(Tensor(element_type, (), 0)))

        @slot(85, _p, _p, text, _p)
        def _real(node: int, name: bytes, out: int) -> int | None:
            value = self._objects[node].attributes.get(name.decode())
            return write(out, ctypes.c_float, value) if isinstance(value, float) else failed()

        @slot(87, _p, _p, text, _p, _p)
        def _text(node: int, name: bytes, out: int | None, size: int) -> int | None:
            value = self._objects[node].attributes.get(name.decode())
            if not isinstance(value, str):
                return failed()
            if out:
                ctypes.memmove(out, value.encode() + b"\0", len(value) + 1)
            return write(size, _size, len(value) + 1)

        slot(278, _p, _p, i32, _p)(lambda node, _, out: write(out, _p, node))
        slot(77, _p, _p, _p)(lambda allocator, out: write(out, _p, allocator))
        slot(76, _p, _p, _p)(lambda node, address: self._objects[node].free(address))

        @slot(75, _p, _p, _size, _p)
        def _allocate(node: int, num_bytes: int, out: int) -> int | None:
            try:
                return write(out, _p, self._objects[node].allocate(num_bytes))
            except MemoryError:
                return self.number((1, ctypes.create_string_buffer(b"not enough memory")))

        @slot(49, _p, _p, _p, _size, _p, _size, i32, _p)
        def _tensor(
            _memory: int, data: int, _bytes: int, dims: int, rank: int, kind: int, out: int
        ) -> None:
            shape = tuple((i64 * rank).from_address(dims))
            write(out, _p, self.number(Tensor(kind, shape, data)))

        @slot(211, _p, text, _p, i32, i32, _p)
        def _attribute(name: bytes, data: int, size: int, kind: int, out: int) -> None:
            if kind in kinds:
                values = list((kinds[kind] * size).from_address(data))
                value: Any = values if kind == 2 else values[0]
            else:
                value = ctypes.string_at(data, size).decode()
            write(out, _p, self.number((name.decode(), value)))

        @slot(213, _p, _p, text, text, i32, _p, _p, i32, _p, i32, i32, i32, _p)
        def _create(
            _node: int, name: bytes, _domain: bytes, version: int, _names: int, types: int,
            _num: int, attributes: int, count: int, _inputs: int, _outputs: int, out: int,
        ) -> None:  # fmt: skip
            given = (_p * count).from_address(attributes) if count else ()
            values = dict(self._objects[each] for each in given)
            kind = i32.from_address(types).value
            write(out, _p, self.number(Operator(name.decode(), version, kind, values)))

        @slot(214, _p, _p, _p, _p, i32, _p, i32)
        def _invoke(run: int, op: int, inputs: int, count: int, outputs: int, _: int) -> int | None:
            given = [self._objects[each] for each in (_p * count).from_address(inputs)]
            output = self._objects[_p.from_address(outputs).value]
            try:
                self._objects[run].invoke(self._objects[op], given, output)
            except Exception as error:  # a callback's would be printed and forgotten
                return self.number((1, ctypes.create_string_buffer(repr(error).encode())))
            return None

    @contextlib.contextmanager
    def kernel(self, name: str, provider: str, node: Node) -> Iterator[Callable[[Run], Run]]:
        """Make a kernel; what it yields runs it and returns the run with the output's shape.

        Raises:
            RefusedError: the library refuses the node, or a run of it.
        """
        op = self.ops[name, provider]
        create = ctypes.CFUNCTYPE(_p, _p, _p, _p, _p)(op.CreateKernelV2)
        compute = ctypes.CFUNCTYPE(_p, _p, _p)(op.KernelComputeV2)
        destroy = ctypes.CFUNCTYPE(None, _p)(op.KernelDestroy)
        made = _p()
        address = ctypes.addressof(op)
        self._raise(
            create(
                address, ctypes.addressof(self._table), self.number(node), ctypes.addressof(made)
            )
        )

        def run(what: Run) -> Run:
            self._raise(compute(made, self.number(what)))
            return what

        try:
            yield run
        finally:
            destroy(made)


@functools.cache
def _runtime_of(path: str | Path) -> FakeRuntime:
    return FakeRuntime()


@contextlib.contextmanager
def fake_runtime(path: str | Path | None = None) -> Iterator[FakeRuntime]:
    """A library with this runtime in ONNX Runtime's place, by default the installed one; that has
    the real runtime again afterwards."""
    runtime = _runtime_of(path or library_path())
    try:
        runtime.register(path or library_path())
        yield runtime
    finally:
        if path is None:
            register(onnxruntime.SessionOptions())
