# SPDX-License-Identifier: Apache-2.0
"""Real inputs from a Python function of the user's, `module:function`."""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from toolkit.calibration import Feed
from toolkit.errors import InputError, one_line

_PATTERN = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


USER_ERRORS = (Exception, SystemExit)
"""What code of the user's may raise; an exit of its own must not end the command without a word."""


def user_error(error: BaseException) -> str:
    """The kind of an error of the user's code and its message, on one line."""
    kind, text = type(error).__name__, one_line(error)
    return kind if text == kind else f"{kind}: {text}"


def is_callable_name(text: str | os.PathLike[str]) -> bool:
    """Whether `text` is `module:function` and no file of that name."""
    return _PATTERN.fullmatch(os.fspath(text)) is not None and not Path(text).exists()


def load_callable(text: str, option: str) -> Callable[..., Any]:
    """The function `module:function`; modules of the working directory are found too. Raises
    `InputError` that begins with `option`."""
    module, _, name = text.partition(":")
    try:
        with _working_directory():
            function = getattr(importlib.import_module(module), name)
    except USER_ERRORS as error:  # whatever the user's module does
        raise InputError(f"{option} {text}: cannot be imported ({user_error(error)})") from error
    if not callable(function):
        raise InputError(f"{option} {text}: is no function")
    found: Callable[..., Any] = function
    return found


def feeds_from_callable(text: str) -> Iterator[Feed]:
    """The feeds that a function yields: mappings from input names to arrays. Raises `InputError`
    where it fails or yields something else."""
    function = load_callable(text, "--calibration")
    try:
        given = function()
        if isinstance(given, Mapping) or not isinstance(given, Iterable):
            given = [given]
        for number, feed in enumerate(given):
            if not isinstance(feed, Mapping) or not all(isinstance(key, str) for key in feed):
                raise InputError(
                    f"--calibration {text}: its feed {number + 1} is {type(feed).__name__}, "
                    "expected a mapping from input names to arrays"
                )
            yield {name: np.asarray(array) for name, array in feed.items()}
    except InputError:
        raise
    except USER_ERRORS as error:  # whatever the user's function does
        raise InputError(f"--calibration {text}: failed ({user_error(error)})") from error


@contextlib.contextmanager
def _working_directory() -> Iterator[None]:
    """Lets modules of the working directory be imported, as `python -m` does."""
    here = str(Path.cwd())
    if here in sys.path or "" in sys.path:
        yield
        return
    sys.path.insert(0, here)
    try:
        yield
    finally:
        sys.path.remove(here)
