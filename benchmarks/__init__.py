# SPDX-License-Identifier: Apache-2.0
"""Benchmarks. Each prints ratios measured side by side in one run; none is a test."""
