# SPDX-License-Identifier: Apache-2.0
"""Splits, augmentations and the folders of a user; no data is fetched here."""

from __future__ import annotations

from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="data are torch tensors")

from models.data.augment import Augment, affine, crop, elastic, flip, shift  # noqa: E402
from models.data.image_folder import FolderError, ImageFolder  # noqa: E402
from models.data.splits import Part, hold_out  # noqa: E402
from models.data.text_files import (  # noqa: E402
    END,
    PAD,
    START,
    UNKNOWN,
    Vocabulary,
    read_lines,
    sentence_pairs,
    token_sequences,
)


def chance(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def numbered(count: int) -> Part:
    return Part(torch.arange(count).float().reshape(-1, 1), torch.arange(count))


def test_validation_is_part_of_the_training_set_and_depends_on_the_seed() -> None:
    splits = hold_out(numbered(50), numbered(7), 10, seed=3)
    again = hold_out(numbered(50), numbered(7), 10, seed=3)
    other = hold_out(numbered(50), numbered(7), 10, seed=4)
    held = splits.validation.labels
    assert len(splits.validation) == 10 and len(splits.train) == 40 and len(splits.test) == 7
    assert sorted(torch.cat([held, splits.train.labels]).tolist()) == list(range(50))
    assert torch.equal(held, again.validation.labels)
    assert not torch.equal(held, other.validation.labels)
    assert torch.equal(splits.train.inputs[:, 0].long(), splits.train.labels)


def test_impossible_parts_are_refused() -> None:
    with pytest.raises(ValueError, match="5 samples for validation, expected 0 to 4"):
        hold_out(numbered(5), numbered(1), 5, seed=0)
    with pytest.raises(ValueError, match="3 samples have 2 labels"):
        Part(torch.zeros(3, 1), torch.zeros(2, dtype=torch.int64))


def test_shift_moves_each_image_for_itself() -> None:
    images = torch.rand(64, 2, 9, 7, generator=chance()) + 0.5
    moved = shift(images, 2, chance())
    offsets = set()
    for before, after in zip(images, moved, strict=True):
        padded = torch.nn.functional.pad(before, (2, 2, 2, 2))
        places = [
            (dy, dx)
            for dy in range(5)
            for dx in range(5)
            if torch.equal(padded[:, dy : dy + 9, dx : dx + 7], after)
        ]
        assert len(places) == 1
        offsets.update(places)
    assert len(offsets) > 15
    assert torch.equal(shift(images, 2, chance()), moved)


def test_flip_mirrors_about_half() -> None:
    images = torch.rand(200, 1, 4, 4, generator=chance())
    flipped = flip(images, chance())
    mirrored = sum(torch.equal(b, a.flip(-1)) for a, b in zip(images, flipped, strict=True))
    kept = sum(torch.equal(b, a) for a, b in zip(images, flipped, strict=True))
    assert mirrored + kept == 200
    assert 70 < mirrored < 130


def test_crop_takes_one_window() -> None:
    images = torch.arange(2 * 6 * 6).reshape(2, 1, 6, 6)
    found = crop(images, 4, chance())
    assert found.shape == (2, 1, 4, 4)
    assert torch.equal(found[1] - found[0], torch.full((1, 4, 4), 36))
    with pytest.raises(ValueError, match="6 × 6 pixels, expected at least 7 × 7"):
        crop(images, 7)


def test_affine_and_elastic_move_little_and_in_their_degree() -> None:
    images = torch.zeros(8, 1, 28, 28)
    images[:, :, 10:18, 10:18] = 1
    assert torch.allclose(affine(images, 0.0), images, atol=1e-4)
    assert torch.allclose(elastic(images, 0.0), images, atol=1e-4)
    for little, much in (
        (affine(images, 3, generator=chance()), affine(images, 30, generator=chance())),
        (elastic(images, 0.3, generator=chance()), elastic(images, 3, generator=chance())),
    ):
        changes = [float((changed - images).abs().mean()) for changed in (little, much)]
        assert 0 < changes[0] < changes[1]


def test_augment_follows_the_seed() -> None:
    images = torch.rand(8, 1, 6, 6)
    torch.manual_seed(1)
    first = Augment(1, mirror=True)(images)
    torch.manual_seed(1)
    assert torch.equal(first, Augment(1, mirror=True)(images))
    assert torch.equal(Augment(0)(images), images)


def test_an_image_folder_gives_classes_in_order(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    for name, color in (("b", (255, 0, 0)), ("a", (0, 0, 255))):
        (tmp_path / name / "inner").mkdir(parents=True)
        image.new("RGB", (40, 30), color).save(tmp_path / name / "inner" / "one.png")
    folder = ImageFolder(tmp_path, side=16)
    assert folder.classes == ["a", "b"] and len(folder) == 2
    pixels, number = folder[1]
    assert pixels.shape == (3, 16, 16) and number == 1
    assert float(pixels[0].mean()) == pytest.approx((1 - 0.485) / 0.229, abs=1e-5)
    assert float(pixels[2].mean()) == pytest.approx(-0.406 / 0.225, abs=1e-5)


def test_a_folder_that_holds_no_images_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("PIL.Image")
    with pytest.raises(FolderError, match="no such folder"):
        ImageFolder(tmp_path / "missing")
    with pytest.raises(FolderError, match="no folders in it"):
        ImageFolder(tmp_path)
    (tmp_path / "cats").mkdir()
    with pytest.raises(FolderError, match="no images of class 'cats'"):
        ImageFolder(tmp_path)
    (tmp_path / "cats" / "one.jpg").write_bytes(b"nothing")
    with pytest.raises(FolderError, match="one.jpg: not a readable image"):
        ImageFolder(tmp_path)[0]


def test_text_becomes_runs_of_tokens(tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    file.write_text("a b a\n\nb a c\n", encoding="utf-8")
    lines = read_lines(file)
    vocabulary = Vocabulary.of(lines, limit=6)
    assert vocabulary.words[4:] == ("a", "b")
    assert vocabulary.numbers("b c a") == [5, UNKNOWN, 4, END]
    runs = token_sequences(lines, vocabulary, 4)
    assert runs.tolist() == [[START, 4, 5, 4, END], [END, 5, 4, UNKNOWN, END]]
    with pytest.raises(FolderError, match="the text has 9 tokens, expected more than 9"):
        token_sequences(lines, vocabulary, 9)


def test_sentence_pairs_are_padded_and_must_match(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_text("x y\nx\n", encoding="utf-8")
    target.write_text("u\nu v w\n", encoding="utf-8")
    both = Vocabulary.of(read_lines(source)), Vocabulary.of(read_lines(target))
    sources, targets = sentence_pairs(source, target, both)
    assert sources.tolist() == [[4, 5, END], [4, END, PAD]]
    assert targets.tolist() == [[4, END, PAD, PAD], [4, 5, 6, END]]
    shorter = sentence_pairs(source, target, both, limit=3)
    assert len(shorter[0]) == 1
    with pytest.raises(FolderError, match="no pair of sentences has at most 1 tokens"):
        sentence_pairs(source, target, both, limit=1)
    target.write_text("u\n", encoding="utf-8")
    with pytest.raises(FolderError, match="has 2 lines and .* 1, expected the same"):
        sentence_pairs(source, target, both)
    target.write_bytes(b"a\xff")
    with pytest.raises(FolderError, match="byte 1 is not UTF-8"):
        read_lines(target)
    with pytest.raises(FolderError, match="cannot be read"):
        read_lines(tmp_path / "missing")
