"""Tiny-ImageNet from a small folder in the layout of the original archive."""

import os
import warnings

import numpy
import pytest
import torch
from PIL import Image

from fastbound import data, models
from fastbound.data import DataError, tiny_imagenet

CLASSES = ["n03", "n01", "n02"]  # the file need not be sorted


def write_jpeg(path, color, size=64, mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, (size, size), color).save(path, "JPEG", quality=100)


@pytest.fixture
def folder(tmp_path):
    """Four training and two validation images a class; a class's red is its number times 80."""
    root = tmp_path / "tiny-imagenet-200"
    root.mkdir()
    (root / "wnids.txt").write_text("\n".join(CLASSES) + "\n")
    lines = []
    for name in CLASSES:
        red = 80 * (int(name[1:]) - 1)
        for i in range(4):
            write_jpeg(root / "train" / name / "images" / f"{name}_{i}.JPEG", (red, 10 * i, 0))
        for i in range(2):
            write_jpeg(root / "val" / "images" / f"val_{name}{i}.JPEG", (red, 0, 30 * i))
            lines.append(f"val_{name}{i}.JPEG\t{name}\t0\t0\t63\t63")
    (root / "val" / "val_annotations.txt").write_text("\n".join(lines) + "\n")
    return root


def test_images_and_labels(folder):
    for place in (folder, folder.parent):  # the folder itself, or the one that it was unpacked in
        loaded = data.load("tiny-imagenet", place)
        assert (len(loaded.train), len(loaded.test), loaded.input_shape) == (12, 6, (3, 64, 64))
        assert loaded.num_classes == 3 and loaded.default_eps == 1 / 255
        assert loaded.train.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4  # in the order of the names
        for part in (loaded.train, loaded.test):
            red = part.pixels[:, 0].float().mean((1, 2))
            assert (red - 80 * part.labels).abs().max() < 3  # JPEG
        green = loaded.train.pixels[:4, 1].float().mean((1, 2))
        assert (green - torch.tensor([0.0, 10, 20, 30])).abs().max() < 3
    assert loaded.augmentation == data.Augmentation(flip=True, crop=4, mode="edge")
    assert "cnn7" in models.fitting(loaded.input_shape)


def test_pixels_are_those_of_the_decoder(folder):
    path = folder / "train" / "n02" / "images" / "n02_1.JPEG"
    noise = numpy.random.default_rng(0).integers(0, 256, (64, 64, 3), numpy.uint8)
    Image.fromarray(noise).save(path, "JPEG")
    with Image.open(path) as image:
        wanted = torch.from_numpy(numpy.array(image)).permute(2, 0, 1)
    assert torch.equal(data.load("tiny-imagenet", folder).train.pixels[5], wanted)


def test_grey_images_get_three_channels(folder):
    write_jpeg(folder / "train" / "n01" / "images" / "n01_2.JPEG", 100, mode="L")
    assert data.load("tiny-imagenet", folder).train.pixels[2].unique().tolist() == [100]


def test_the_cache_is_read_until_a_file_changes(folder, monkeypatch):
    decoded = []
    read = tiny_imagenet._read_image
    monkeypatch.setattr(tiny_imagenet, "_read_image", lambda path: decoded.append(path) or read(path))
    first = data.load("tiny-imagenet", folder)
    assert len(decoded) == 18 and (folder / "fastbound.safetensors").is_file()
    second = data.load("tiny-imagenet", folder)
    assert len(decoded) == 18 and torch.equal(first.train.pixels, second.train.pixels)
    assert torch.equal(first.test.pixels, second.test.pixels)
    write_jpeg(folder / "train" / "n01" / "images" / "n01_0.JPEG", (200, 200, 200))
    assert data.load("tiny-imagenet", folder).train.pixels[0].float().mean() > 190 and len(decoded) == 36
    (folder / "fastbound.safetensors").write_bytes(b"damaged")
    assert len(data.load("tiny-imagenet", folder).train) == 12 and len(decoded) == 54
    assert sorted(p.name for p in folder.iterdir()) == ["fastbound.safetensors", "train", "val", "wnids.txt"]


def test_a_folder_that_cannot_be_written_is_warned_of(folder, monkeypatch):
    def refuse(*_):
        raise OSError("read-only")

    monkeypatch.setattr(tiny_imagenet, "save_file", refuse)
    with pytest.warns(UserWarning, match="cannot be written .read-only., so every run decodes"):
        assert len(data.load("tiny-imagenet", folder).train) == 12


def damage_wnids(root):
    (root / "wnids.txt").unlink()


def damage_classes(root):
    (root / "wnids.txt").write_text("n01\nn01\n")


def damage_class(root):
    (root / "wnids.txt").write_text("n01\nn02\nn03\nn04\n")


def damage_images(root):
    (root / "train" / "n02" / "images" / "n02_3.JPEG").unlink()


def damage_all_images(root):
    for path in (root / "val" / "images").iterdir():
        path.unlink()


def damage_jpeg(root):
    path = root / "train" / "n02" / "images" / "n02_3.JPEG"
    path.write_bytes(path.read_bytes()[:300])


def damage_kind(root):
    Image.new("RGB", (64, 64)).save(root / "train" / "n02" / "images" / "n02_3.JPEG", "PNG")


def damage_size(root):
    write_jpeg(root / "val" / "images" / "val_n010.JPEG", (0, 0, 0), size=32)


def damage_annotation(root):
    with (root / "val" / "val_annotations.txt").open("a") as file:
        file.write("val_x.JPEG n01\n")


def damage_annotations(root):
    path = root / "val" / "val_annotations.txt"
    path.write_text("".join(path.read_text().splitlines(True)[1:]))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_wnids, r"wnids\.txt: cannot be read"),
        (damage_classes, r"wnids\.txt: wanted at least 2 different class names"),
        (damage_class, r"train/n04/images: there is no such folder .wanted the layout"),
        (damage_images, r"train/n02/images: 3 images, but other classes have 4; unpack"),
        (damage_all_images, r"val/images: there is no file \*\.JPEG"),
        (damage_jpeg, r"n02_3\.JPEG: cannot be decoded as a JPEG image"),
        (damage_kind, r"n02_3\.JPEG: cannot be decoded as a JPEG image"),
        (damage_size, r"val_n010\.JPEG: wanted 64x64 pixels, found 32x32"),
        (damage_annotation, r"val_annotations\.txt, line 7: wanted a file, a tab and a class"),
        (damage_annotations, r"val: 1 names are only in images/ or only in val_annotations\.txt, such as val_n03"),
    ],
)
def test_damage_is_named(folder, damage, message):
    damage(folder)
    with pytest.raises(DataError, match=message):
        data.load("tiny-imagenet", folder)
    assert not any("fastbound" in name for name in os.listdir(folder))


def test_nothing_is_said_of_a_good_folder(folder):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data.load("tiny-imagenet", folder)
