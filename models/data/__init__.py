# SPDX-License-Identifier: Apache-2.0
"""Data as tensors: official splits, a validation split by seed, folders of the user."""
