# SPDX-License-Identifier: Apache-2.0
"""The malformed corpus through decoders built with sanitizers: refused, and no fault.

`make sanitize` builds the driver and names it in TOOLKIT_FUZZ_DRIVER.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from runtime import Status

DRIVER = os.environ.get("TOOLKIT_FUZZ_DRIVER")


@pytest.mark.skipif(DRIVER is None, reason="the sanitizer build is made by `make sanitize`")
def test_corpus_is_refused_without_a_fault(tmp_path: Path) -> None:
    from tests.malformed_corpus import malformed_blobs

    expected = {}
    for number, (name, words, code) in enumerate(malformed_blobs()):
        file_name = f"{number:05d}_{name}".replace("/", "_").replace(" ", "_")
        (tmp_path / file_name).write_bytes(words.astype("<u2").tobytes())
        expected[file_name] = code
    assert expected, "the corpus is empty"
    result = subprocess.run(
        [str(DRIVER), str(tmp_path)], capture_output=True, text=True, check=False, timeout=600
    )
    assert result.returncode == 0, result.stderr[-4000:]
    found = [line.rsplit(" ", 2) for line in result.stdout.splitlines()]
    codes = {name: f"TK_ERR_{Status(int(wide)).name}" for name, wide, _small in found}
    wrong = {name: (code, codes[name]) for name, code in expected.items() if codes[name] != code}
    assert not wrong
