# SPDX-License-Identifier: Apache-2.0
"""Several processes, as torchrun starts them: who is who, and the few collective operations that
the loop needs. With one process all of them do nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from toolkit.errors import InputError


@dataclass(frozen=True)
class World:
    """This process among all: its rank, their number, its place on this machine."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0


@contextmanager
def joined(device: str) -> Iterator[World]:
    """Joins the processes that torchrun has started (RANK and WORLD_SIZE are set), by gloo on CPU
    and nccl on CUDA; leaves them at the end if it was this call that joined them."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1 and not dist.is_initialized():
        yield World()
        return
    mine = not dist.is_initialized()
    if mine:
        if not dist.is_available():
            raise InputError("several processes: this build of torch has no distributed package")
        dist.init_process_group("nccl" if device.startswith("cuda") else "gloo")
    try:
        local = int(os.environ.get("LOCAL_RANK", "0"))
        yield World(dist.get_rank(), dist.get_world_size(), local)
        if mine:
            dist.barrier()  # nobody leaves while another one is still at work
    finally:
        if mine:
            dist.destroy_process_group()


def sums(values: list[float], device: torch.device, world: World) -> list[float]:
    """The sums over all processes of each of ``values``."""
    if world.size == 1:
        return values
    total = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(total)
    return [float(value) for value in total.tolist()]


def gathered(value: Any, device: torch.device, world: World) -> list[Any]:
    """What JSON can hold, of each process, in the order of ranks."""
    if world.size == 1:
        return [value]
    mine = torch.tensor(list(json.dumps(value).encode()), dtype=torch.uint8, device=device)
    lengths = [torch.zeros(1, dtype=torch.int64, device=device) for _ in range(world.size)]
    dist.all_gather(lengths, torch.tensor([len(mine)], device=device))
    longest = max(int(length) for length in lengths)
    padded = torch.zeros(longest, dtype=torch.uint8, device=device)
    padded[: len(mine)] = mine
    parts = [torch.zeros_like(padded) for _ in range(world.size)]
    dist.all_gather(parts, padded)
    return [
        json.loads(bytes(part[: int(length)].tolist()).decode())
        for part, length in zip(parts, lengths, strict=True)
    ]


def meet(world: World) -> None:
    """Waits until all processes are here."""
    if world.size > 1:
        dist.barrier()
