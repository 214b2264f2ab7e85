"""The networks of the literature: layers, sizes, errors."""

import pytest
import torch
from torch import nn

from fastbound import models
from fastbound.nn import MinMax

CIFAR, MNIST, DIGITS = (3, 32, 32), (1, 28, 28), (1, 8, 8)


def described(model: nn.Module) -> list[str]:
    """One word a layer: c16/4/2/0 for a convolution, p0101 for padding (left, right, top, bottom), f100 for a fully
    connected layer, b for BatchNorm, r for ReLU."""
    words = []
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d):
            words.append(f"c{layer.out_channels}/{layer.kernel_size[0]}/{layer.stride[0]}/{layer.padding[0]}")
        elif isinstance(layer, nn.ZeroPad2d):
            words.append("p" + "".join(map(str, layer.padding)))
        elif isinstance(layer, nn.Linear):
            words.append(f"f{layer.out_features}")
        elif isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            words.append("b")
        elif isinstance(layer, nn.ReLU):
            words.append("r")
    return words


PLANS = {
    "mlp": "f256 r f256 r f256 r f10",
    "paradox-fc": "f400 r f200 r f100 r f100 r f10",
    "paradox-conv": "c16/4/2/1 r f100 r f10",
    "dm-small": "c16/4/2/0 r c32/4/1/0 r f100 r f10",
    "dm-medium": "c32/3/1/0 r c32/4/2/0 r c64/3/1/0 r c64/4/2/0 r f512 r f512 r f10",
    "dm-large": "c64/3/1/1 r c64/3/1/1 r c128/3/2/1 r c128/3/1/1 r c128/3/1/1 r f512 r f10",
    "cnn7": "c64/3/1/1 b r c64/3/1/1 b r c128/3/2/1 b r c128/3/1/1 b r c128/3/1/1 b r f512 b r f10",
    "wide-cnn": "c128/3/1/1 r p0101 c256/3/2/0 r p0101 c512/3/2/0 r f1024 r f10",
    "wide-resnet": "c16/3/1/1 b r"
    " c128/3/1/1 b r c128/3/1/1 b c128/1/1/0 b c256/3/2/1 b r c256/3/1/1 b c256/1/2/0 b c512/3/2/1 b r c512/3/1/1 b "
    "c512/1/2/0 b f512 b r f10",
    "resnext": "c64/3/1/1 b r"
    " c64/1/1/0 b r c64/3/1/1 b r c128/1/1/0 b c128/1/1/0 b c128/1/1/0 b r c128/3/2/1 b r c256/1/1/0 b c256/1/2/0 b"
    " c256/1/1/0 b r c256/3/2/1 b r c512/1/1/0 b c512/1/2/0 b f512 b r f10",
    "gloro-2c2f": "c16/4/2/1 r c32/4/2/1 r f100 r f10",
    "gloro-4c3f": "c32/3/1/1 r c32/4/2/1 r c64/3/1/1 r c64/4/2/1 r f512 r f512 r f10",
    "gloro-6c2f": "c32/3/1/1 r c32/3/1/1 r c32/4/2/1 r c64/3/1/1 r c64/3/1/1 r c64/4/2/1 r f512 r f10",
    "gloro-tin": "c64/3/1/1 r c64/3/1/1 r c64/4/2/1 r c128/3/1/1 r c128/4/2/1 r c256/3/1/1 r c256/4/2/1 r f10",
}


@pytest.mark.parametrize("name", models.names())
def test_layers_are_those_of_the_papers(name):
    with torch.device("meta"):
        model = models.build(name, CIFAR, 10)
    assert " ".join(described(model)) == PLANS[name]
    assert all(layer.bias is not None for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.Linear))


@pytest.mark.parametrize("name", ["dm-small", "dm-medium", "dm-large"])
def test_norm_puts_batchnorm_after_every_layer_but_the_classifier(name):
    with torch.device("meta"):
        model = models.build(name, CIFAR, 10, norm=True)
    assert " ".join(described(model)) == PLANS[name].replace(" r", " b r")
    assert model(torch.rand(2, *CIFAR, device="meta")).shape == (2, 10)


@pytest.mark.parametrize("size", range(5, 12))
def test_gloro_networks_pad_like_tensorflow(size):
    """SAME: ceil(size / stride) pixels, the odd pixel of the padding on the right and at the bottom."""
    model = models.build("gloro-4c3f", (1, size, size + 1), 10, activation="minmax")
    assert sum(isinstance(layer, MinMax) for layer in model) == 6
    x = torch.rand(2, 1, size, size + 1)
    for layer in model:
        if isinstance(layer, nn.ZeroPad2d):
            left, right, top, bottom = layer.padding
            assert 0 <= right - left <= 1 and 0 <= bottom - top <= 1
        if isinstance(layer, nn.Flatten):
            break
        x = layer(x)
    assert x.shape[2:] == (-(-size // 4), -(-(size + 1) // 4))
    assert model(torch.rand(2, 1, size, size + 1)).shape == (2, 10)


def test_gloro_activations_are_named():
    with pytest.raises(ValueError, match="activation: wanted relu or minmax, got 'gelu'"):
        models.build("gloro-2c2f", MNIST, 10, activation="gelu")


@pytest.mark.parametrize(
    ("name", "padded"),
    [
        ("dm-small", "c16/4/2/1 r p1212 c32/4/1/0 r f100 r f10"),
        ("dm-medium", "c32/3/1/1 r c32/4/2/1 r c64/3/1/1 r c64/4/2/1 r f512 r f512 r f10"),
    ],
)
def test_same_padding_keeps_the_size_that_the_stride_leaves(name, padded):
    with torch.device("meta"):
        model = models.build(name, MNIST, 10, same_padding=True)
    assert " ".join(described(model)) == padded
    hidden = next(layer for layer in model if isinstance(layer, nn.Linear)).in_features
    assert hidden == {"dm-small": 32 * 14 * 14, "dm-medium": 64 * 7 * 7}[name]


@pytest.mark.parametrize("norm", [False, True])
def test_same_padding_is_that_of_torch_where_torch_has_it(norm):
    """At stride 1 padding='same' also puts the odd pixel at the end."""
    layers = models._same_convs((1, 7, 6), [(3, 4, 1, 0)], norm)
    x, conv = torch.rand(2, 1, 7, 6), layers[1]
    wanted = nn.functional.conv2d(x, conv.weight, conv.bias, padding="same")
    torch.testing.assert_close(nn.Sequential(*layers[:2])(x), wanted)


@pytest.mark.parametrize(
    ("name", "shape"), [(name, shape) for shape in (CIFAR, MNIST, DIGITS) for name in models.fitting(shape)], ids=str
)
def test_forward_gives_logits(name, shape):
    small = {
        "wide-cnn": {"width": 4},
        "cnn7": {"width": 4},
        "dm-large": {"width": 4},
        "wide-resnet": {"width": 8},
        "resnext": {"width": 8},
    }
    model = models.build(name, shape, 7, **small.get(name, {}))
    logits = model(torch.rand(3, *shape))
    assert logits.shape == (3, 7)
    logits.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_known_sizes():
    with torch.device("meta"):
        count = sum(p.numel() for p in models.build("cnn7", CIFAR, 10).parameters())
    # algorithms: the hidden layer of CNN-7 is 32768 x 512, 16.8M of about 17.2M parameters
    assert 17.1e6 < count < 17.3e6
    with torch.device("meta"):
        tiny = models.build("cnn7", (3, 64, 64), 200, last_stride=2)
    assert [layer.in_features for layer in tiny if isinstance(layer, nn.Linear)] == [32768, 512]


def test_grouped_convolutions_of_resnext():
    groups = [
        layer.groups for layer in models.build("resnext", DIGITS, 10, width=8).modules() if isinstance(layer, nn.Conv2d)
    ]
    assert groups.count(2) == 3 and set(groups) == {1, 2}


def test_residual_block_adds_and_rectifies():
    model = models.build("wide-resnet", DIGITS, 10, width=8).eval()
    block = model[3]
    x = torch.randn(2, 16, 8, 8)
    assert torch.equal(block(x), (block.body(x) + block.shortcut(x)).clamp(min=0))
    assert block(x).min() == 0


def test_a_network_that_does_not_fit_names_those_that_do():
    with pytest.raises(
        ValueError,
        match=r"dm-small does not fit inputs of shape \[1, 8, 8\].*Networks that fit: cnn7, dm-large, gloro-2c2f, "
        "gloro-4c3f, gloro-6c2f, gloro-tin, mlp, paradox-conv, paradox-fc, resnext, "
        r"wide-cnn, wide-resnet",
    ):
        models.build("dm-small", DIGITS, 10)
    assert models.fitting((7,)) == ["mlp", "paradox-fc"]
    assert "dm-small" in models.fitting((1, 10, 10)) and "dm-small" not in models.fitting((1, 9, 9))
    assert models.default_network(DIGITS) == "mlp" and models.default_network(MNIST) == "dm-small"


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("resnet", MNIST, 10), {}, "no network 'resnet'; known: cnn7, dm-large"),
        (("cnn7", MNIST, 10), {"depth": 3}, "cnn7 has no option depth; its options: width, last_stride"),
        (("dm-small", MNIST, 10), {"width": 3}, "dm-small has no option width; its options: norm"),
        (("dm-small", MNIST, 10), {"norm": "no"}, "norm of dm-small: wanted true or false, got 'no'"),
        (("mlp", (), 10), {}, "input_shape"),
        (("mlp", MNIST, 1), {}, "num_classes: wanted at least 2, got 1"),
        (("mlp", MNIST, 10), {"mean": (0.5,)}, "belong together"),
    ],
)
def test_bad_requests(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        models.build(*arguments, **options)


def test_normalisation_is_the_first_layer():
    model = models.build("mlp", (3, 4, 4), 10, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    x = torch.rand(2, 3, 4, 4)
    mean, std = torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1), torch.tensor([0.2, 0.3, 0.4]).view(3, 1, 1)
    torch.testing.assert_close(model[0](x), (x - mean) / std)
