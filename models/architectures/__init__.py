# SPDX-License-Identifier: Apache-2.0
"""Architectures as torch modules, untrained, one file each; the paper is named in each file.

All take images as float32 (batch, channels, height, width), or token numbers as int64 (batch,
positions) where the file says so, and return logits.
"""
