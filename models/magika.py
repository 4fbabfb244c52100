# SPDX-License-Identifier: Apache-2.0
"""magika: names the type of a file from its first and last 1024 bytes (dense layers and a CNN).

Evaluated on the files of two source distributions against their extensions; a prediction counts
as right when the package's own knowledge base lists the extension under the predicted label.
Plain text and templates (`.txt`, `.html` of Django) are left out: their extension is no truth.
"""

from __future__ import annotations

import functools
import json
from pathlib import PurePosixPath

import numpy as np
import numpy.typing as npt

from models.fetch import Package, read_member, read_members
from models.fidelity import stacked_outputs
from models.network import Evaluation, Feeds, Network, Run
from models.packages import DJANGO, MAGIKA, PYGMENTS, SCIKIT_LEARN

FOLDER = "magika/models/standard_v3_3"
EDGE, BLOCK, PADDING, MIN_SIZE = 1024, 4096, 256, 8
PER_EXTENSION, BATCH = 40, 32
AMBIGUOUS = {"txt", "html"}


def file_features(content: bytes) -> npt.NDArray[np.int32]:
    """Bytes of a file as the network reads them: int32 (2048,), 0 to 255, or 256 for padding.

    The first 1024 bytes after leading white space, then the last 1024 before trailing white space,
    each searched within a block of 4096 bytes; padding stands at the inner ends.
    """
    first = content[:BLOCK].lstrip()[:EDGE]
    last = content[-BLOCK:].rstrip()[-EDGE:]
    features = np.full(2 * EDGE, PADDING, np.int32)
    features[: len(first)] = np.frombuffer(first, np.uint8)
    features[2 * EDGE - len(last) :] = np.frombuffer(last, np.uint8)
    return features


@functools.cache
def labelled_files(package: Package) -> tuple[npt.NDArray[np.int32], list[set[int]]]:
    """Features (files, 2048) of a package's files, and for each the indices of its right labels.

    At most 40 files of each extension, the first by name; extensions without a label are skipped.
    """
    config = json.loads(read_member(MAGIKA, f"{FOLDER}/config.min.json"))
    knowledge = json.loads(read_member(MAGIKA, "magika/config/content_types_kb.min.json"))
    labels: dict[str, set[int]] = {}
    for index, label in enumerate(config["target_labels_space"]):
        for extension in knowledge[label]["extensions"]:
            labels.setdefault(extension, set()).add(index)
    taken: dict[str, int] = {}
    features, truths = [], []
    for name, content in read_members(package).items():
        extension = PurePosixPath(name).suffix[1:].lower()
        if extension in AMBIGUOUS or extension not in labels or len(content.strip()) < MIN_SIZE:
            continue
        taken[extension] = taken.get(extension, 0) + 1
        if taken[extension] <= PER_EXTENSION:
            features.append(file_features(content))
            truths.append(labels[extension])
    return np.stack(features), truths


def _score(run: Run, limit: int | None) -> Evaluation:
    parts = [labelled_files(package) for package in (DJANGO, PYGMENTS)]
    features = np.concatenate([part[0] for part in parts])[:limit]
    truths = [truth for part in parts for truth in part[1]][:limit]
    scores = stacked_outputs(run, {"bytes": features}, BATCH)[0]
    finite = np.isfinite(scores).all(1)
    pairs = zip(scores.argmax(1), truths, strict=True)
    right = np.array([int(label) in truth for label, truth in pairs])
    return Evaluation("accuracy", float(100 * np.mean(right & finite)), "%", len(truths))


def _inputs(count: int) -> Feeds:
    return {"bytes": labelled_files(SCIKIT_LEARN)[0][:count]}


NETWORK = Network(
    name="magika",
    kind="cnn",
    description="file types from 2 x 1024 bytes, 214 labels, 0.78 M parameters",
    packages=(MAGIKA, DJANGO, PYGMENTS, SCIKIT_LEARN),
    build=lambda: read_member(MAGIKA, f"{FOLDER}/model.onnx"),
    score=_score,
    calibrate=_inputs,
    example=_inputs,
    baseline=91.31,
    unit="%",
)
