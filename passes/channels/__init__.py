# SPDX-License-Identifier: Apache-2.0
"""Channels that can only be removed together: finding, choosing, refitting and cutting them."""

from __future__ import annotations

from passes.channels.groups import BlockedLayer, ChannelGroup, ChannelMap, find_channel_groups
from passes.channels.selection import SELECTIONS, Selection
from passes.channels.sweep import PrunedGroup

__all__ = [
    "SELECTIONS",
    "BlockedLayer",
    "ChannelGroup",
    "ChannelMap",
    "PrunedGroup",
    "Selection",
    "find_channel_groups",
]
