# SPDX-License-Identifier: Apache-2.0
"""Gradients of a model's outputs with respect to values inside of it, as a graph of standard
operators."""

from passes.gradients.backward import with_gradients

__all__ = ["with_gradients"]
