# SPDX-License-Identifier: Apache-2.0
"""The registry: every network by its name. A network's module is imported on first use."""

from __future__ import annotations

import importlib
from collections.abc import Iterator

from models.network import Network

NAMES = (
    "magika",
    "silero_vad",
    "open_nsfw",
    "basic_pitch",
    "cifar_cnn",
    "mnist_cnn",
    "efficientnet_lite0",
    "minilm",
    "crepe",
    "stories15m",
)


def network(name: str) -> Network:
    """The network called `name`. Raises `ValueError`, which lists the names, for any other."""
    if name not in NAMES:
        raise ValueError(f"no network is called {name!r}; there are {', '.join(NAMES)}")
    found = importlib.import_module(f"models.{name}").NETWORK
    if not isinstance(found, Network):
        raise TypeError(f"models.{name}.NETWORK is a {type(found).__name__}, expected a Network")
    return found


def networks() -> Iterator[Network]:
    """All networks, in the order of `NAMES`."""
    return (network(name) for name in NAMES)
