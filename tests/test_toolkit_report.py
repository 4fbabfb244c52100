# SPDX-License-Identifier: Apache-2.0
"""The HTML report: what its labels show."""

from __future__ import annotations

from toolkit.report_charts import _fitting
from toolkit.report_html import _breakable


def test_tiles_show_names_that_tell_weights_apart() -> None:
    assert _fitting("encoder.0.query.weight", 15) == "encoder.0.query"
    assert _fitting("encoder.0.query.weight", 14) == "…coder.0.query"
    assert _fitting("encoder.0.query.weight", 10) == ""


def test_names_are_wrapped_between_their_parts() -> None:
    assert _breakable("a.b_c/<d>") == "a.<wbr>b_<wbr>c/&lt;d&gt;"
