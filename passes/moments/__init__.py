# SPDX-License-Identifier: Apache-2.0
"""What the weights of a model are multiplied with on calibration data."""

from passes.moments.measure import MeasuredMoments, measure_moments
from passes.moments.output_importance import measure_output_importance, with_outputs

__all__ = ["MeasuredMoments", "measure_moments", "measure_output_importance", "with_outputs"]
