# SPDX-License-Identifier: Apache-2.0
"""Runs a compressed file and the original, and says how alike they are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from toolkit.fidelity import Fidelity, compare_outputs
from toolkit.memory import release_memory

if TYPE_CHECKING:
    from toolkit.calibration import Feed
    from toolkit.choose_settings import Choice
    from toolkit.pipeline import Finished
    from toolkit.verify import Expected

SAME_DB = 30.0
"""Outputs of two ways of running a file differ by no more than this. Weights are the same bit for
bit, but of float16 and of quantised activations other fusions may round otherwise."""
STOCK_FEEDS = 4
"""Feeds that are run on stock ONNX Runtime, where every run decodes all weights anew."""


def judge_file(
    model: Path,
    path: Path,
    choice: Choice,
    finished: Finished,
    expected: dict[str, Expected],
    notes: list[str],
    threads: int,
) -> tuple[Fidelity, Fidelity, Fidelity | None]:
    """Fidelity of the outputs of the file at `path` to those of `model`, the same in the search's
    own measure, and on stock ONNX Runtime where that was run. Metrics go to `notes`. Raises
    `VerificationError` where its weights are not those `expected`."""
    from toolkit.padding import without_padding
    from toolkit.verify import (
        check_weights,
        run_compressed,
        run_original,
        run_parts,
        run_stock,
        score,
    )

    def compared(found: list[dict[str, Any]]) -> Fidelity:
        return compare_outputs(original, without_padding(found, feeds), choice.ignored)

    release_memory()
    feeds, encoded = choice.feeds, {row.name for row in finished.encoded}
    kept = [name for name in expected if name not in encoded]
    original = without_padding(run_original(model, feeds, threads), feeds)
    release_memory()
    if not encoded:
        unchanged = compared(run_stock(path, feeds, threads))
        return unchanged, unchanged, None
    check_weights(path, expected, kept, threads)
    release_memory()
    parted = choice.judged.parted
    parts = run_parts(path, parted, feeds, threads) if parted else None
    if parts is not None:  # which has the outputs as well
        runs = [{name: run[name] for name in original[0]} for run in parts]
    else:
        runs = run_compressed(path, feeds, threads)
    fidelity = judged = compared(runs)
    if parts is not None:
        seen = without_padding(choice.judged.of(parts), feeds)
        judged = compare_outputs(choice.reference, seen, choice.ignored)
    elif parted:
        if choice.result is not None and choice.result.fidelity is not None:
            judged = choice.result.fidelity  # the file does not show them, the search saw them
    elif choice.judged.kinds:
        seen = without_padding(choice.judged.of(runs), feeds)
        judged = compare_outputs(choice.judged.of(original), seen, choice.ignored)
    if choice.score is not None:
        fidelity.score = judged.score = score(path, choice.score, threads)
        original_score = choice.target.baseline
        notes.append(f"metric {choice.score.text}: {original_score:.6g} -> {fidelity.score:.6g}")
    if choice.moments and not _same(choice.fitted, feeds):
        notes += _other_fidelities(model, path, choice, fidelity, threads)
    stock = None
    if finished.functions:
        few = slice(STOCK_FEEDS)
        loaded = without_padding(runs[few], feeds[few])
        del runs, parts  # the outputs of a language model are larger than the model
        release_memory()
        found = without_padding(run_stock(path, feeds[few], threads), feeds[few])
        stock = compare_outputs(original[few], found, choice.ignored)
        apart = compare_outputs(loaded, found, choice.ignored)
        if apart.sqnr_db < SAME_DB:
            notes.append(
                f"stock ONNX Runtime gives other outputs than load mode ({apart.sqnr_db:.1f} dB "
                "apart) with the same weights: do not use the file there, and report this"
            )
    return fidelity, judged, stock


def _other_fidelities(
    model: Path, path: Path, choice: Choice, last: Fidelity, threads: int
) -> list[str]:
    """What the file does on data that it was fitted to, as much of it as the last word was had
    on, and on data that the search measured on; beside `last`."""
    from toolkit.padding import without_padding
    from toolkit.verify import run_compressed, run_original

    parts = {"fitted to": choice.fitted[: len(choice.feeds)]}
    if not _same(choice.searched, choice.feeds):
        parts["searched on"] = choice.searched
    found = []
    for words, feeds in parts.items():
        original, after = (
            without_padding(runs, feeds)
            for runs in (
                run_original(model, feeds, threads),
                run_compressed(path, feeds, threads),
            )
        )
        fidelity = compare_outputs(original, after, choice.ignored)
        found.append(f"{fidelity.sqnr_db:.2f} dB on data that was {words}")
    return [f"output SQNR: {', '.join(found)}, {last.sqnr_db:.2f} dB on data kept apart from it"]


def _same(first: Sequence[Feed], second: Sequence[Feed]) -> bool:
    return len(first) == len(second) and all(a is b for a, b in zip(first, second, strict=True))
