"""Data sets, the loader and its errors."""

import gzip
import struct
from pathlib import Path

import pytest
import torch
from conftest import ROOT

from fastbound import data

SHARED = ROOT.parent / "shared" / "data"


def write_idx(path: Path, array: torch.Tensor, packed: bool = False) -> Path:
    content = (
        struct.pack(f">{1 + array.dim()}I", 0x800 + array.dim(), *array.shape) + array.to(torch.uint8).numpy().tobytes()
    )
    path.write_bytes(gzip.compress(content) if packed else content)
    return path


def write_mnist(folder: Path, count: int = 20, packed: bool = False) -> Path:
    folder.mkdir(exist_ok=True)
    end = ".gz" if packed else ""
    for part in ("train", "t10k"):
        write_idx(folder / f"{part}-images-idx3-ubyte{end}", torch.randint(0, 256, (count, 28, 28)), packed)
        write_idx(folder / f"{part}-labels-idx1-ubyte{end}", torch.arange(count) % 10, packed)
    return folder


def test_digits_are_the_1797_images_split_once():
    digits = data.load("digits")
    assert (len(digits.train), len(digits.test), digits.input_shape) == (1437, 360, (1, 8, 8))
    everything = torch.cat([digits.train.pixels, digits.test.pixels]).flatten(1)
    assert int(everything.max()) == 16
    # 1,797 different images: no test image is a training image.
    assert len(torch.unique(everything, dim=0)) == 1797
    assert sorted(digits.test.labels.unique().tolist()) == list(range(10))


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("name", ["mnist", "fashion-mnist"])
def test_idx_files_are_read_back(tmp_path, name, packed):
    write_mnist(tmp_path, packed=packed)
    loaded = data.load(name, tmp_path)
    end = ".gz" if packed else ""
    raw = (tmp_path / f"t10k-images-idx3-ubyte{end}").read_bytes()
    raw = gzip.decompress(raw) if packed else raw
    assert loaded.test.pixels.numpy().tobytes() == raw[16:]
    assert loaded.test.labels.tolist() == [i % 10 for i in range(20)]


def test_real_mnist():
    if not (SHARED / "mnist").is_dir():
        pytest.skip(f"MNIST is not at {SHARED / 'mnist'}: the reader was not tried on the real files")
    mnist = data.load("mnist", SHARED / "mnist")
    assert (len(mnist.train), len(mnist.test)) == (60000, 10000)
    assert mnist.train.labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert abs(mnist.train.pixels.double().mean().item() / 255 - 0.1307) < 1e-4


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: b"\0\0\x08\x01" + content[4:], "magic number 0x00000801, wanted 0x00000803"),
        (lambda content: content[:-5], "header announces 20x28x28"),
        (lambda content: content + b"x", "header announces 20x28x28"),
        (lambda content: content[:7], "too few for the header"),
        (lambda content: b"", "too few for the header"),
        (lambda content: gzip.compress(content)[:-20], "gzip archive is truncated"),
        (
            lambda content: gzip.compress(content)[:40] + b"\xff" * 20 + gzip.compress(content)[60:],
            "gzip archive is damaged",
        ),
        (lambda content: content[:4] + struct.pack(">I", 0) + content[8:16], "no values"),
    ],
)
def test_damaged_images_name_the_file_and_the_damage(tmp_path, damage, message):
    write_mnist(tmp_path)
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(data.DataError, match=message) as caught:
        data.load("mnist", tmp_path)
    assert str(path) in str(caught.value)


def test_labels_out_of_range_and_of_another_length(tmp_path):
    write_mnist(tmp_path)
    path = tmp_path / "t10k-labels-idx1-ubyte"
    write_idx(path, torch.tensor([1] * 19 + [10]))
    with pytest.raises(data.DataError, match="label 10 of image 19 is out of range, wanted 0 to 9") as caught:
        data.load("mnist", tmp_path)
    assert str(path) in str(caught.value)
    write_idx(path, torch.zeros(19))
    with pytest.raises(data.DataError, match="19 labels for the 20 images"):
        data.load("mnist", tmp_path)


def test_missing_things_are_named(tmp_path):
    with pytest.raises(ValueError, match="cifar10, digits, fashion-mnist, mnist"):
        data.load("imagenet")
    with pytest.raises(ValueError, match="--data-dir"):
        data.load("mnist")
    with pytest.raises(data.DataError, match="nowhere: there is no such folder"):
        data.load("mnist", tmp_path / "nowhere")
    with pytest.raises(data.DataError, match="train-images-idx3-ubyte"):
        data.load("mnist", tmp_path)
    with pytest.raises(data.DataError, match=r"data_batch_1\.bin"):
        data.load("cifar10", tmp_path)


def test_cifar_binary_layout(tmp_path):
    table = torch.randint(0, 256, (6, 3073), dtype=torch.uint8)
    table[:, 0] = torch.arange(6)
    path = tmp_path / "test_batch.bin"
    path.write_bytes(table.numpy().tobytes())
    images = data.read_cifar_binary(path, records=6)
    assert images.labels.tolist() == list(range(6))
    # red plane first, row by row
    assert images.pixels[4, 1, 2, 3] == table[4, 1 + 1024 + 2 * 32 + 3]
    with pytest.raises(data.DataError, match="18438 bytes, wanted 30730000"):
        data.read_cifar_binary(path)
    table[2, 0] = 77
    path.write_bytes(table.numpy().tobytes())
    with pytest.raises(data.DataError, match="label 77 of image 2"):
        data.read_cifar_binary(path, records=6)


def numbered(count: int) -> data.Images:
    return data.Images(torch.arange(count, dtype=torch.uint8).view(-1, 1, 1, 1), torch.arange(count) % 10)


def read(loader: data.Loader, epoch: int = 0, first: int = 0) -> list[list[int]]:
    return [(x.flatten() * 255).round().int().tolist() for x, _ in loader.epoch(epoch, first)]


def test_loader_reads_everything_once_and_scales_to_one():
    loader = data.Loader(numbered(10), 4)
    assert read(loader) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]] and len(loader) == 3
    x, labels = next(iter(data.Loader(data.load("digits").test, 360)))
    assert x.dtype == torch.float32 and labels.dtype == torch.int64 and x.min() == 0 and x.max() == 1


def test_order_depends_on_seed_and_epoch_alone():
    def loader(seed: int) -> data.Loader:
        return data.Loader(numbered(40), 8, shuffle=True, drop_last=True, seed=seed)

    assert sorted(number for batch in read(loader(0)) for number in batch) == list(range(40))
    assert read(loader(0), 3) == read(loader(0), 3)
    assert read(loader(0), 3) != read(loader(0), 4)
    assert read(loader(0), 3) != read(loader(1), 3)
    assert read(loader(0), 3, first=2) == read(loader(0), 3)[2:]


def test_processes_share_every_global_batch():
    whole = read(data.Loader(numbered(21), 8, shuffle=True))
    shards = [read(data.Loader(numbered(21), 8, shuffle=True, rank=rank, world_size=2)) for rank in range(2)]
    for batch, first, second in zip(whole, *shards, strict=True):
        assert sorted(first + second) == sorted(batch) and not set(first) & set(second)
    with pytest.raises(ValueError, match="not divisible by the 3 processes"):
        data.Loader(numbered(21), 8, world_size=3)


def test_drop_last_keeps_the_only_batch():
    assert [len(b) for b in read(data.Loader(numbered(10), 4, drop_last=True))] == [4, 4]
    assert [len(b) for b in read(data.Loader(numbered(3), 4, drop_last=True))] == [3]


@pytest.mark.parametrize("mode", ["edge", "zero"])
def test_crop_equals_padding_and_slicing(mode):
    pixels = torch.randint(1, 256, (64, 3, 6, 5), dtype=torch.uint8)
    cropped = data.Augmentation(crop=2, mode=mode)(pixels, torch.Generator().manual_seed(0))
    padded = torch.nn.functional.pad(
        pixels.float(), (2, 2, 2, 2), mode="replicate" if mode == "edge" else "constant"
    ).byte()
    offsets = []
    for image, big in zip(cropped, padded, strict=True):
        found = [(i, j) for i in range(5) for j in range(5) if torch.equal(image, big[:, i : i + 6, j : j + 5])]
        assert found
        offsets += found
    assert len(set(offsets)) > 15  # all over the place, not one corner


def test_flip_turns_about_half_of_the_images():
    pixels = torch.arange(4, dtype=torch.uint8).expand(1000, 1, 1, 4).contiguous()
    flipped = data.Augmentation(flip=True)(pixels, torch.Generator().manual_seed(0))
    turned = (flipped[:, 0, 0, 0] == 3).float().mean()
    assert 0.4 < turned < 0.6
    assert torch.equal(flipped.sort(-1).values, pixels)


def test_augmentation_is_the_same_from_any_starting_batch():
    def loader() -> data.Loader:
        augmentation = data.Augmentation(flip=True, crop=2)
        return data.Loader(data.load("digits").train.limit(64), 16, shuffle=True, augmentation=augmentation, seed=5)

    whole = list(loader().epoch(2))
    late = list(loader().epoch(2, first_batch=3))
    assert torch.equal(whole[3][0], late[0][0]) and torch.equal(whole[3][1], late[0][1])
    assert not torch.equal(whole[0][0], next(loader().epoch(3))[0])


@pytest.mark.parametrize(
    ("options", "message"), [({"crop": -1}, "0 or more pixels"), ({"mode": "mirror"}, "'edge' or 'zero'")]
)
def test_bad_augmentation(options, message):
    with pytest.raises(ValueError, match=message):
        data.Augmentation(**options)


def test_bad_sizes():
    with pytest.raises(ValueError, match="batch_size: wanted at least 1, got 0"):
        data.Loader(numbered(3), 0)
    with pytest.raises(ValueError, match="limit: wanted at least 1 image, got 0"):
        numbered(3).limit(0)
    with pytest.raises(ValueError, match="no image"):
        data.Loader(data.Images(torch.empty(0, 1, 1, 1, dtype=torch.uint8), torch.empty(0, dtype=torch.int64)), 4)
