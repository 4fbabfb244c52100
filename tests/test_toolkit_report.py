# SPDX-License-Identifier: Apache-2.0
"""The HTML report: what its labels show."""

from __future__ import annotations

import re

from toolkit.report_charts import _fitting, curve_of_points, final_stage
from toolkit.report_html import _breakable
from toolkit.search import TracePoint


def test_tiles_show_names_that_tell_weights_apart() -> None:
    assert _fitting("encoder.0.query.weight", 15) == "encoder.0.query"
    assert _fitting("encoder.0.query.weight", 14) == "…coder.0.query"
    assert _fitting("encoder.0.query.weight", 10) == ""


def test_names_are_wrapped_between_their_parts() -> None:
    assert _breakable("a.b_c/<d>") == "a.<wbr>b_<wbr>c/&lt;d&gt;"


def test_candidates_that_lose_an_output_are_hollow_and_off_the_line() -> None:
    def point(stage: str, size: float, sqnr_db: float, healthy: bool = True) -> TracePoint:
        return TracePoint(stage, -3.0, size, False, sqnr_db, 0.1, healthy)

    trace = [
        point("uniform", 3000, 20.0),
        point("sensitivity", 2000, 30.0, healthy=False),
        point("uniform", 4000, 26.0),
        point("curve", 5000, 31.0),
        point("result", 4000, 26.0),
    ]
    assert final_stage(trace) == "uniform"
    drawn = curve_of_points(trace)
    line = re.findall(r'<polyline class="line" points="([^"]*)"', drawn)[0].split()
    assert len(line) == 4
    assert re.findall(r'circle class="([^"]*)"', drawn) == [
        *("dot", "faint lost", "dot", "dot", "chosen"),
    ]
    assert drawn.count("an output is lost") == 1
