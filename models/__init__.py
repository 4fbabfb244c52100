# SPDX-License-Identifier: Apache-2.0
"""Trained networks and real data from package registries, for tests, benchmarks and examples.

`models.zoo.network(name)` gives a network: its float ONNX file, its real inputs and its measure.
Nothing of the fetched archives is part of the repository; see `models.fetch`.
"""
