# SPDX-License-Identifier: Apache-2.0
"""Slow NumPy decoders that follow FORMAT.md section by section.

They are what every other decoder is compared with, bit for bit. They check everything that
FORMAT.md names and raise `FormatError` with the status code of `codec_api.h`. They need nothing but
NumPy.

    frame.py        section 1          magic, version, coder, length, checksum
    wide_header.py  sections 2.1-2.3   geometry, fields, directories, where each part lies
    wide_tables.py  sections 2.4, 2.5  class arrays, thresholds, frequencies
    wide.py         sections 2.6, 2.7  decoding, exceptions; `decode_segment`, `decode_matrix`
"""

from __future__ import annotations

from runtime.oracle.errors import FormatError
from runtime.oracle.wide import decode_matrix, decode_segment

__all__ = ["FormatError", "decode_matrix", "decode_segment"]
