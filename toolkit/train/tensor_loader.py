# SPDX-License-Identifier: Apache-2.0
"""Batches of a data set that is held as tensors: indexing is far faster than worker processes for
small samples, and the order is a function of seed and epoch, so that training resumes anywhere."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

import torch

from toolkit.errors import InputError
from toolkit.train.distributed import World

Batch = Any
Augment = Callable[[torch.Tensor, torch.Generator], torch.Tensor]


class Loader(Protocol):
    """What the trainer asks of data."""

    num_samples: int

    def __len__(self) -> int:
        """The number of batches of an epoch."""

    def batches(
        self, epoch: int, first: int = 0, world: World | None = None
    ) -> Iterator[tuple[Batch, float]]:
        """The batches of an epoch from number ``first`` on, each with the weight of its mean in the
        mean over all processes: 1 with one process."""


class TensorLoader:
    """Batches of tensors of equal first dimension.

    Args:
        tensors: [samples, ...] each, of any dtype; a batch is a tuple of their rows.
        batch_size: Samples of a batch, of all processes together.
        shuffle: A new order each epoch, a function of ``seed`` and the epoch alone.
        seed: Of the order and of ``augment``.
        drop_last: Leave out a last batch that is smaller.
        augment: Called with the first tensor of a batch and a generator whose seed follows from
            ``seed``, epoch and batch.

    Raises:
        InputError: no tensors, none of any samples, or different numbers of them.
    """

    def __init__(
        self,
        *tensors: torch.Tensor,
        batch_size: int = 128,
        shuffle: bool = False,
        seed: int = 0,
        drop_last: bool = False,
        augment: Augment | None = None,
    ) -> None:
        counts = [len(tensor) for tensor in tensors]
        if not counts or counts[0] == 0:
            raise InputError("data: there are no samples")
        if len(set(counts)) > 1:
            raise InputError(f"data: tensors of the same samples differ in number: {counts}")
        if batch_size < 1:
            raise InputError(f"batch_size: expected 1 or more, found {batch_size}")
        if drop_last and counts[0] < batch_size:
            raise InputError(f"data: {counts[0]} samples are no batch of {batch_size}")
        self.tensors, self.num_samples = tensors, counts[0]
        self.batch_size, self.shuffle, self.seed = batch_size, shuffle, seed
        self.drop_last, self.augment = drop_last, augment

    def __len__(self) -> int:
        whole, rest = divmod(self.num_samples, self.batch_size)
        return whole + bool(rest and not self.drop_last)

    def to(self, device: torch.device) -> TensorLoader:
        """The same loader with its tensors on ``device``."""
        if all(tensor.device == device for tensor in self.tensors):
            return self
        return self.with_tensors(*(tensor.to(device) for tensor in self.tensors))

    def first(self, count: int) -> TensorLoader:
        """A loader of the first ``count`` samples, in order."""
        part = self.with_tensors(*(tensor[:count] for tensor in self.tensors))
        part.shuffle = False
        return part

    def with_tensors(self, *tensors: torch.Tensor) -> TensorLoader:
        """A loader of other tensors with the same options."""
        return TensorLoader(
            *tensors,
            batch_size=self.batch_size,
            shuffle=self.shuffle,
            seed=self.seed,
            drop_last=self.drop_last,
            augment=self.augment,
        )

    def order(self, epoch: int) -> torch.Tensor:
        """int64 [samples]: which sample comes when in ``epoch``."""
        if not self.shuffle:
            return torch.arange(self.num_samples)
        return torch.randperm(self.num_samples, generator=_generator(self.seed, epoch))

    def batches(
        self, epoch: int, first: int = 0, world: World | None = None
    ) -> Iterator[tuple[Batch, float]]:
        """As `Loader.batches`; each process takes every ``world.size``-th sample of a batch."""
        world = world or World()
        order = self.order(epoch)
        for number in range(first, len(self)):
            whole = order[number * self.batch_size : (number + 1) * self.batch_size]
            mine = whole[world.rank :: world.size]
            share = world.size * len(mine) / len(whole)
            if len(mine) == 0:  # a stand-in that counts nothing, as all must take part
                mine = whole[:1]
            rows = [tensor[mine.to(tensor.device)] for tensor in self.tensors]
            if self.augment is not None:
                rows[0] = self.augment(rows[0], _generator(self.seed, epoch, number, world.rank))
            yield tuple(rows), share


class IterableLoader:
    """Any iterable with a length, for example a `torch.utils.data.DataLoader`, as a `Loader`.

    Its order is drawn from a seed of the epoch. To begin in the middle, batches before it are read
    and dropped. With several processes each batch is divided among them.
    """

    def __init__(self, iterable: Iterable[Any], num_samples: int, seed: int = 0) -> None:
        self.iterable, self.num_samples, self.seed = iterable, num_samples, seed

    def __len__(self) -> int:
        return len(self.iterable)  # type: ignore[arg-type]

    def batches(
        self, epoch: int, first: int = 0, world: World | None = None
    ) -> Iterator[tuple[Batch, float]]:
        """As `Loader.batches`."""
        world = world or World()
        with _seeded(self.seed, epoch):
            iterator = iter(self.iterable)
            batch = next(iterator, None)
        number = 0
        while batch is not None:
            if number >= first:
                yield _share_of(batch, world)
            batch, number = next(iterator, None), number + 1


def as_loader(data: Any, seed: int = 0) -> Loader:
    """``data`` if it is a loader, else an iterable of batches as one. Raises InputError for what is
    neither."""
    if hasattr(data, "batches"):
        loader: Loader = data
        return loader
    if not hasattr(data, "__len__") or not hasattr(data, "__iter__"):
        raise InputError(f"data: expected batches with a length, found {type(data).__name__}")
    dataset = getattr(data, "dataset", None)
    count = len(dataset) if dataset is not None else sum(len(_tensors(b)[0]) for b in data)
    if len(data) == 0 or count == 0:
        raise InputError("data: there are no samples")
    return IterableLoader(data, count, seed)


def move(batch: Batch, device: torch.device) -> Batch:
    """A batch, a tensor or nested tuples of them, on ``device``."""
    if isinstance(batch, torch.Tensor):
        return batch.to(device)
    if isinstance(batch, dict):
        return {key: move(value, device) for key, value in batch.items()}
    return tuple(move(part, device) for part in batch)


def _tensors(batch: Batch) -> Sequence[torch.Tensor]:
    if isinstance(batch, torch.Tensor):
        return [batch]
    return list(batch.values()) if isinstance(batch, dict) else list(batch)


def _share_of(batch: Batch, world: World) -> tuple[Batch, float]:
    if world.size == 1:
        return batch, 1.0
    whole = len(_tensors(batch)[0])
    mine = len(range(world.rank, whole, world.size))
    rows = slice(world.rank, None, world.size) if mine else slice(0, 1)
    if isinstance(batch, torch.Tensor):
        return batch[rows], world.size * mine / whole
    if isinstance(batch, dict):
        part: Any = {key: value[rows] for key, value in batch.items()}
    else:
        part = tuple(value[rows] for value in batch)
    return part, world.size * mine / whole


def _generator(*numbers: int) -> torch.Generator:
    """A generator whose seed mixes ``numbers`` (FNV-1a over 64 bits)."""
    state = 0xCBF29CE484222325
    for number in numbers:
        for byte in int(number).to_bytes(8, "little", signed=True):
            state = ((state ^ byte) * 0x100000001B3) % 2**64
    return torch.Generator().manual_seed(state >> 1)


@contextlib.contextmanager
def _seeded(seed: int, epoch: int) -> Iterator[None]:
    """Torch's own generator seeded for an epoch, and afterwards as it was."""
    state = torch.get_rng_state()
    torch.manual_seed(_generator(seed, epoch).initial_seed())
    try:
        yield
    finally:
        torch.set_rng_state(state)
