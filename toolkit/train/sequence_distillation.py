# SPDX-License-Identifier: Apache-2.0
"""Sequence-level distillation: the student learns the sequences that the teacher writes, in place
of the references (Kim and Rush 2016, "Sequence-level knowledge distillation", section 3.2)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from toolkit.errors import InputError
from toolkit.train.task import Task
from toolkit.train.tensor_loader import Batch, TensorLoader, as_loader, move


def sequence_task(
    task: Task,
    write: Callable[[Batch], tuple[torch.Tensor, ...]],
    device: str = "cpu",
) -> Task:
    """The task with the teacher's sequences to train with; validation and test stay.

    Args:
        task: Whose training batches are tuples of tensors.
        write: Batch -> the batch with the teacher's sequences as targets (and as inputs of a
            decoder), each tensor padded to the same length in all batches.
        device: Where the teacher runs.

    Raises:
        InputError: the training data are not held as tensors, or lengths differ.
    """
    loader = as_loader(task.train)
    if not isinstance(loader, TensorLoader):
        raise InputError("sequence distillation: hold the training data in a TensorLoader")
    ordered = loader.first(loader.num_samples)
    parts: list[list[torch.Tensor]] = []
    with torch.no_grad():
        for batch, _ in ordered.batches(0):
            parts.append([part.cpu() for part in write(move(batch, torch.device(device)))])
    try:
        tensors: Any = [torch.cat(column) for column in zip(*parts, strict=True)]
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"sequence distillation: the teacher's batches do not fit together ({error})"
        ) from error
    return replace(task, train=loader.with_tensors(*tensors))
