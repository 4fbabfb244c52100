# SPDX-License-Identifier: Apache-2.0
"""What the nodes of an inverse transform take in a file: nothing beside a large weight, more than a
small weight itself."""

from __future__ import annotations

from collections.abc import Sequence

from passes.schemes.transform_kinds import TRIGONOMETRIC, wavelet_filters, wavelet_levels

_CHAIN, _FURTHER_AXIS = 300, 360
_BASIS = {"dct": 550, "dst": 550, "dft": 730}
_WAVELET, _TAP, _SCALE, _ODD_SCALE = 200, 16, 350, 270


def graph_bytes(kind: str, sizes: Sequence[int], levels: int | None) -> int:
    """Bytes of the nodes and small constants that undo a transform along axes of ``sizes``, where
    no other weight shares its basis: a bound that files stay below
    (``test_nodes_take_no_more_than_is_charged``)."""
    mixed = [size for size in sizes if size > 1]
    if not mixed:
        return 0
    total = _CHAIN + _FURTHER_AXIS * (len(mixed) - 1)
    for size in sorted(set(mixed)):
        if kind in TRIGONOMETRIC:
            total += _BASIS[kind]
            continue
        scales = wavelet_levels(kind, size, levels or 0)
        total += _WAVELET + _TAP * wavelet_filters(kind)[0].shape[1] + _SCALE * len(scales)
        total += _ODD_SCALE * sum(scale % 2 for scale in scales)
    return total
