# SPDX-License-Identifier: Apache-2.0
"""The zoo against real packages. Tests whose archives cannot be fetched skip and say which."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from models.fetch import DataUnavailable, Package, archive_path, read_member
from models.network import Feeds, Network, session_run
from models.wordpiece import WordPiece
from models.zoo import NAMES, network

NEED_TORCH = {"efficientnet_lite0", "crepe"}
LIMITS = {"crepe": 40}
"""Samples where all of them would take longer than about 20 s."""

TOLERANCE = {"%": 0.2, "cosine": 0.002, "nats": 0.002}
"""Largest difference from the baseline: 0.2 points, or their counterpart in other units."""

FEW = 32


def available(name: str) -> Network:
    """The network with its ONNX file built; skips where its archives cannot be had."""
    if name in NEED_TORCH:
        pytest.importorskip("torch")
    found = network(name)
    try:
        found.onnx_path()
        for package in found.packages:
            archive_path(package)
    except DataUnavailable as error:
        pytest.skip(str(error))
    return found


@pytest.mark.parametrize("name", NAMES)
def test_float_file_reaches_its_baseline(name: str) -> None:
    entry = available(name)
    result = entry.evaluate(session_run(entry.onnx_path()), LIMITS.get(name))
    assert result.unit == entry.unit
    assert result.value == pytest.approx(entry.baseline, abs=TOLERANCE[entry.unit])


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("value", [0.0, np.nan], ids=["zero", "nan"])
@pytest.mark.parametrize("name", NAMES)
def test_dead_outputs_lose_quality(name: str, value: float) -> None:
    entry = available(name)
    run = session_run(entry.onnx_path())

    def dead(feeds: Feeds) -> list[npt.NDArray[Any]]:
        return [np.full_like(output, value) for output in run(feeds)]

    limit = None if name == "silero_vad" else FEW
    loss = entry.baseline - entry.evaluate(dead, limit).value
    assert (loss if entry.higher_is_better else -loss) > 20 * TOLERANCE[entry.unit]


@pytest.mark.parametrize("name", NAMES)
def test_calibration_and_example_feeds_run(name: str) -> None:
    entry = available(name)
    run = session_run(entry.onnx_path())
    calibration = entry.calibration(6)
    assert max(len(value) for value in calibration.values()) == 6
    for feeds in (calibration, entry.feeds(1), entry.feeds(2)):
        assert all(np.isfinite(output).all() for output in run(feeds))


def tone(hertz: float, rate: int, count: int) -> npt.NDArray[np.float32]:
    """A sine of amplitude 0.5, float32 (count,)."""
    sound = 0.5 * np.sin(2 * np.pi * hertz * np.arange(count) / rate)
    return np.asarray(sound, np.float32)


@pytest.mark.parametrize("hertz", [110.0, 440.0])
def test_crepe_hears_the_pitch_of_a_tone(hertz: float) -> None:
    run = session_run(available("crepe").onnx_path())
    frame = tone(hertz, 16_000, 1024)[None]
    activations = run({"frames": (frame - frame.mean()) / frame.std(ddof=1)})[0][0]
    # Bin b stands for 1997.38 + 20 b cents above 10 Hz.
    cents = 1997.3794 + 20 * int(activations.argmax())
    assert cents == pytest.approx(1200 * np.log2(hertz / 10), abs=25)


def test_basic_pitch_hears_the_note_of_a_tone() -> None:
    run = session_run(available("basic_pitch").onnx_path())
    sound = tone(440.0, 22_050, 43_844)[None, :, None]
    notes = run({"serving_default_input_2:0": sound})[1][0].mean(0)
    assert int(notes.argmax()) == 48  # A4 is the 49th key of a piano


def test_minilm_puts_like_sentences_together() -> None:
    run = session_run(available("minilm").onnx_path())
    from models.minilm import embed

    texts = (
        "A man is eating food.",
        "Someone eats a piece of bread.",
        "The sky was full of stars.",
    )
    cosines = embed(run, texts) @ embed(run, texts).T
    assert cosines[0, 1] > 0.5 > 0.2 > cosines[0, 2]


def test_minilm_embedding_ignores_padding() -> None:
    run = session_run(available("minilm").onnx_path())
    from models.minilm import embed

    short, long = "A short text.", "This sentence is much longer, so that the other one is padded."
    np.testing.assert_allclose(embed(run, (short,))[0], embed(run, (short, long))[0], atol=1e-5)


def test_open_nsfw_finds_the_photos_safe() -> None:
    entry = available("open_nsfw")
    run = session_run(entry.onnx_path())
    assert (run(entry.feeds(4))[0].argmax(1) == 0).all()


def fake_package(folder: Path, sha256: str | None) -> Package:
    """A zip archive in the cache `folder`, pinned by its own digest unless another is given."""
    path = folder / "archives" / "fake-1.0-py3-none-any.whl"
    path.parent.mkdir()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("inside.txt", "content")
    digest = sha256 or hashlib.sha256(path.read_bytes()).hexdigest()
    return Package("wheel", "fake", "1.0", path.name, digest, path.stat().st_size)


def test_member_of_a_verified_archive_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path))
    package = fake_package(tmp_path, None)
    assert read_member(package, "inside.txt") == b"content"
    with pytest.raises(DataUnavailable, match=r"fake 1\.0 \(wheel\): .* no member 'absent'"):
        read_member(package, "absent")


def test_archive_with_another_checksum_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOOLKIT_CACHE", str(tmp_path))
    package = fake_package(tmp_path, "0" * 64)
    with pytest.raises(DataUnavailable, match=r"fake 1\.0 \(wheel\): .* expected 0{64}"):
        read_member(package, "inside.txt")


def test_word_pieces_are_the_longest_known() -> None:
    vocabulary = "\n".join(
        ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "play", "##ing", "##in", "##g", "!"]
    )
    tokens = WordPiece(vocabulary)
    assert tokens.encode("Plàying! xyz", 16) == [2, 4, 5, 8, 1, 3]
    batch = tokens.encode_batch(["play", "playing!"], 16)
    assert batch["input_ids"].tolist() == [[2, 4, 3, 0, 0], [2, 4, 5, 8, 3]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]


def test_unknown_network_is_named() -> None:
    with pytest.raises(ValueError, match=r"no network is called 'absent'; there are magika"):
        network("absent")
