# SPDX-License-Identifier: Apache-2.0
"""A machine that runs PTX on the CPU, for kernels as nvcc compiles them (docs/CUDA.md)."""
