"""Which spelling of a torch function reaches which rule, and how the absence of a rule is reported."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from zoo import Call

import fastbound as fb
from fastbound.domains import rules
from fastbound.errors import MissingRuleError

MAP = torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(0))
OTHER = torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(1))

# Spellings of one function; the first is the one that the others must equal.
SPELLINGS: dict[str, list[Callable[[Any], Any]]] = {
    "max_pool2d": [lambda x: F.max_pool2d(x, 2), lambda x: torch.max_pool2d(x, 2), nn.MaxPool2d(2)],
    "max_pool1d": [lambda x: F.max_pool1d(x[0], 2), lambda x: torch.max_pool1d(x[0], 2)],
    "avg_pool1d": [lambda x: F.avg_pool1d(x[0], 2), lambda x: torch.avg_pool1d(x[0], 2)],
    "adaptive_avg_pool1d": [lambda x: F.adaptive_avg_pool1d(x[0], 2), lambda x: torch.adaptive_avg_pool1d(x[0], 2)],
    "relu": [
        F.relu,
        torch.relu,
        lambda x: x.relu(),
        nn.ReLU(),
        lambda x: F.threshold(x, 0.0, 0.0),
        lambda x: x.clamp(min=0),
    ],
    "sigmoid": [torch.sigmoid, F.sigmoid, lambda x: x.sigmoid(), nn.Sigmoid()],
    "tanh": [torch.tanh, F.tanh, lambda x: x.tanh()],
    "abs": [torch.abs, lambda x: x.abs(), abs, torch.absolute],
    "neg": [torch.neg, lambda x: -x, torch.negative, lambda x: x.neg()],
    "clamp": [
        lambda x: torch.clamp(x, -1, 1),
        lambda x: x.clip(-1, 1),
        F.hardtanh,
        lambda x: torch.clip(x, min=-1, max=1),
    ],
    "add": [
        lambda x: x + OTHER,
        lambda x: OTHER + x,
        lambda x: torch.add(x, OTHER),
        lambda x: torch.add(OTHER, x),
        lambda x: OTHER.add(x),
        lambda x: x.add(OTHER),
        lambda x: x - -OTHER,
    ],
    "sub": [
        lambda x: x - OTHER,
        lambda x: torch.sub(x, OTHER),
        lambda x: torch.subtract(x, OTHER),
        lambda x: x.sub(OTHER),
    ],
    "rsub": [
        lambda x: OTHER - x,
        lambda x: torch.sub(OTHER, x),
        lambda x: OTHER.sub(x),
        lambda x: torch.rsub(x, OTHER),
    ],
    "number - x": [lambda x: 2.0 - x, lambda x: torch.rsub(x, 2.0), lambda x: torch.tensor(2.0) - x],
    "mul": [
        lambda x: x * OTHER,
        lambda x: OTHER * x,
        lambda x: torch.mul(OTHER, x),
        lambda x: OTHER.mul(x),
        lambda x: x.mul(OTHER),
        lambda x: torch.multiply(x, OTHER),
    ],
    "div": [
        lambda x: x / 4,
        lambda x: torch.div(x, 4),
        lambda x: x.div(4),
        lambda x: torch.true_divide(x, 4),
        lambda x: x.divide(4),
    ],
    "reshape": [
        lambda x: x.reshape(2, -1),
        lambda x: x.view(2, -1),
        lambda x: torch.flatten(x, 1),
        nn.Flatten(),
        lambda x: torch.reshape(x, (2, 144)),
        lambda x: x.view(x.shape[0], -1),
        lambda x: x.reshape(len(x), 144),
    ],
    "transpose": [
        lambda x: x.transpose(1, 2),
        lambda x: torch.swapaxes(x, 1, 2),
        lambda x: torch.transpose(x, dim0=1, dim1=2),
        lambda x: x.permute(0, 2, 1, 3),
        lambda x: torch.swapdims(x, 1, 2),
    ],
    "movedim": [lambda x: torch.movedim(x, 1, -1), lambda x: x.movedim(1, -1), lambda x: torch.moveaxis(x, 1, -1)],
    "cat": [
        lambda x: torch.cat([x, x], 1),
        lambda x: torch.concat((x, x), 1),
        lambda x: torch.concatenate([x, x], dim=1),
    ],
    "mean": [
        lambda x: x.mean((2, 3)),
        lambda x: torch.mean(x, [2, 3]),
        lambda x: F.adaptive_avg_pool2d(x, 1).flatten(1),
    ],
    "index": [lambda x: x[:, 1], lambda x: x.select(1, 1), lambda x: torch.select(x, 1, 1), lambda x: x.unbind(1)[1]],
    "upsample": [
        lambda x: F.interpolate(x, scale_factor=2),
        nn.Upsample(scale_factor=2),
        nn.UpsamplingNearest2d(scale_factor=2),
    ],
    "dropout": [
        lambda x: x,
        lambda x: F.dropout(x, training=False),
        nn.Dropout().eval(),
        lambda x: torch.dropout(x, 0.5, False),
    ],
    "batch_norm": [
        lambda x: F.batch_norm(x, torch.zeros(4), torch.ones(4)),
        nn.BatchNorm2d(4).eval(),
        lambda x: torch.batch_norm(x, None, None, torch.zeros(4), torch.ones(4), False, 0.1, 1e-5, False),
    ],
    "linear": [lambda x: F.linear(x, MAP[0, 0]), lambda x: x @ MAP[0, 0].T, lambda x: torch.matmul(x, MAP[0, 0].T)],
    "conv2d": [
        lambda x: F.conv2d(x, MAP[:, :, :3, :3], padding=1),
        lambda x: torch.conv2d(x, MAP[:, :, :3, :3], None, 1, 1),
    ],
}


@pytest.mark.parametrize("name", SPELLINGS)
def test_all_spellings_reach_one_rule(name: str) -> None:
    first = None
    for spelling in SPELLINGS[name]:
        try:
            out = spelling(fb.linf_box(MAP, 0.1))
        except MissingRuleError as error:
            # A spelling without a rule says so; it may not answer anything else.
            assert "has no rule for Interval" in str(error)
            assert name in ("relu", "dropout", "batch_norm"), f"{name}: {error}"
            continue
        first = out if first is None else first
        for end in ("lower", "upper", "nominal"):
            assert torch.allclose(getattr(out, end), getattr(first, end), rtol=1e-5, atol=1e-5)


def test_max_pool_is_two_functions_in_torch() -> None:
    assert F.max_pool2d is not torch.max_pool2d
    assert rules.canonical(F.max_pool2d) is rules.canonical(torch.max_pool2d)


# ---- the absence of a rule -------------------------------------------------------------------------------------------


class Net(nn.Module):
    def __init__(self, last: nn.Module) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Sequential(nn.Identity(), last))

    def forward(self, x: Any) -> Any:
        return self.features(x)


MISSING: dict[str, tuple[nn.Module, str]] = {
    "softmax": (nn.Softmax(1), "torch.nn.functional.softmax"),
    "group norm": (nn.GroupNorm(2, 4), "torch.nn.functional.group_norm"),
    "layer norm": (nn.LayerNorm(4), "torch.nn.functional.layer_norm"),
    "instance norm": (nn.InstanceNorm2d(4), "torch.nn.functional.instance_norm"),
    "torch.digamma": (Call(torch.digamma), "torch.digamma"),
    "torch.maximum": (Call(lambda x: torch.maximum(x, x)), "torch.maximum"),
    "torch.cumsum": (Call(lambda x: x.cumsum(1)), "torch.Tensor.cumsum"),
    "alpha dropout": (nn.AlphaDropout(), "torch.nn.functional.alpha_dropout"),
    "max pool with indices": (nn.MaxPool2d(2, return_indices=True), "torch.nn.functional.max_pool2d_with_indices"),
    "local response norm": (nn.LocalResponseNorm(2), "torch.nn.functional.local_response_norm"),
    "x.max()": (Call(lambda x: x.max()), "torch.Tensor.max"),
    "x.norm()": (Call(lambda x: x.norm()), "torch.Tensor.norm"),
    "x > 0": (Call(lambda x: x > 0), "torch.gt"),
    "x == 0": (Call(lambda x: x == 0), "torch.eq"),
}


@pytest.mark.parametrize("name", MISSING)
def test_a_missing_rule_names_the_function_and_the_module(name: str) -> None:
    module, function = MISSING[name]
    with pytest.raises(NotImplementedError) as caught:
        Net(module)(fb.linf_box(MAP, 0.1))
    text = str(caught.value)
    assert function in text and "features.2.1" in text and type(module).__name__ in text and "rule" in text


def test_attention_is_refused_by_name() -> None:
    box = fb.linf_box(torch.rand(2, 3, 8), 0.1)
    attention = nn.MultiheadAttention(8, 2, batch_first=True)
    for grad in (True, False):
        for training in (True, False):
            with torch.set_grad_enabled(grad), pytest.raises(NotImplementedError, match="MultiheadAttention"):
                attention.train(training)(box, box, box)
    with pytest.raises(NotImplementedError, match="self_attn"):
        nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)(box)


def test_max_pooling_with_indices_is_refused_by_name() -> None:
    with pytest.raises(NotImplementedError, match="max_pool2d_with_indices"):
        F.max_pool2d(fb.linf_box(MAP, 0.1), 2, return_indices=True)


def test_hasattr_works() -> None:
    box = fb.linf_box(MAP, 0.1)
    assert not hasattr(box, "cumsum") and hasattr(box, "relu")
    assert getattr(box, "no_such_thing", "default") == "default"
    assert issubclass(MissingRuleError, NotImplementedError) and issubclass(MissingRuleError, AttributeError)
    with pytest.raises(MissingRuleError, match="cumsum"):
        box.cumsum(1)


def test_control_flow_that_depends_on_data_is_refused() -> None:
    box = fb.linf_box(MAP, 0.1)
    with pytest.raises(TypeError, match="control flow"):
        bool(box.sum())
    with pytest.raises(NotImplementedError, match="control flow"):
        box[box]
    assert box in [None, box] and box != None and {box: 1}[box] == 1  # noqa: E711  handles compare by identity


def test_numpy_numbers_keep_to_the_rules() -> None:
    numpy = pytest.importorskip("numpy")
    out = numpy.float64(2.0) * fb.linf_box(MAP, 0.1)
    assert isinstance(out, fb.Interval) and torch.allclose(out.lower, 2 * MAP - 0.2, atol=1e-6)


# ---- SyncBatchNorm ---------------------------------------------------------------------------------------------------


@pytest.fixture
def one_process(tmp_path: Any) -> Iterator[None]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def test_an_inactive_sync_batch_norm_is_a_batch_norm(one_process: None) -> None:
    torch.manual_seed(0)
    sync, plain = nn.SyncBatchNorm(4).eval(), nn.BatchNorm2d(4).eval()
    assert torch.equal(sync(fb.linf_box(MAP, 0.1)).lower, plain(fb.linf_box(MAP, 0.1)).lower)


def test_an_active_sync_batch_norm_raises_or_is_converted(one_process: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """In evaluation it is inert. In training on CPU torch itself refuses; a converted one works."""
    sync = nn.SyncBatchNorm(4)
    with monkeypatch.context() as patch:
        patch.setattr(dist, "get_world_size", lambda group=None: 2)
        patch.setattr(torch.distributed, "get_world_size", lambda group=None: 2)
        with pytest.raises((NotImplementedError, ValueError), match="SyncBatchNorm"):
            sync(fb.linf_box(MAP, 0.1))
    sync, plain = nn.SyncBatchNorm(4), nn.BatchNorm2d(4)
    converted = fb.convert(nn.Sequential(sync))
    monkeypatch.setattr(fb.nn.SyncBatchNorm, "_synchronises", lambda self: True)  # with itself alone
    out, wanted = converted(fb.linf_box(MAP, 0.1)), plain(fb.linf_box(MAP, 0.1))
    assert torch.allclose(out.lower, wanted.lower, atol=1e-5) and torch.allclose(out.upper, wanted.upper, atol=1e-5)
    assert torch.allclose(sync.running_var, plain.running_var, atol=1e-6) and sync.num_batches_tracked.item() == 1


@pytest.mark.parametrize("synchronises", [False, True])
def test_a_converted_sync_batch_norm_keeps_the_variance_of_channels_far_from_zero(
    one_process: None, monkeypatch: pytest.MonkeyPatch, synchronises: bool
) -> None:
    monkeypatch.setattr(fb.nn.SyncBatchNorm, "_synchronises", lambda self: synchronises)
    x = 100 + 0.01 * torch.randn(64, 4, 3, 3)
    sync, plain = nn.SyncBatchNorm(4), nn.BatchNorm2d(4)
    out = fb.convert(nn.Sequential(sync))(fb.linf_box(x, 0.001))
    assert torch.allclose(out.nominal, plain(x), atol=2e-2)
    assert torch.allclose(sync.running_var, plain.running_var, atol=1e-6)


# ---- rules of users --------------------------------------------------------------------------------------------------


@pytest.fixture
def own_rule() -> Iterator[None]:
    before = dict(rules._table[fb.Interval])
    yield
    rules._table[fb.Interval].clear()
    rules._table[fb.Interval].update(before)


def test_a_rule_of_the_user(own_rule: None) -> None:
    model = nn.Sequential(nn.Linear(4, 5), Call(torch.asinh), nn.Linear(5, 3))
    x = torch.rand(2, 4)
    with pytest.raises(
        MissingRuleError, match=r"torch\.asinh has no rule.*@fastbound\.rule\(fastbound\.Interval, torch\.asinh\)"
    ):
        model(fb.linf_box(x, 0.1))

    @fb.rule(fb.Interval, torch.asinh)
    def asinh(input: fb.Interval) -> fb.Interval:
        nominal = None if input.nominal is None else torch.asinh(input.nominal)
        return fb.Interval.from_bounds(torch.asinh(input.lower), torch.asinh(input.upper), nominal=nominal)

    for nominal in (True, False):
        out = model(fb.linf_box(x, 0.1, nominal=nominal))
        inside = torch.stack([model(x + 0.1 * (2 * torch.rand_like(x) - 1)) for _ in range(300)])
        assert (inside >= out.lower - 1e-6).all() and (inside <= out.upper + 1e-6).all()
    bounds = fb.bound(model, fb.linf_box(x, 0.1), method="ibp", spec=fb.margin_spec(torch.tensor([0, 1]), 3))
    bounds.lower.sum().backward()
    assert model[0].weight.grad.abs().sum() > 0
    with pytest.raises(NotImplementedError, match="asinh"):  # a backward walk does not know it, and says so
        _ = fb.bound(model, fb.linf_box(x, 0.1), method="crown").lower


def test_a_rule_may_replace_one_and_serves_in_place_calls(own_rule: None) -> None:
    calls = []

    @fb.rule(fb.Interval, F.silu)
    def silu(input: fb.Interval) -> fb.Interval:
        calls.append(1)
        return fb.Interval.from_bounds(input.lower - 1, input.upper + 1)

    box = fb.linf_box(MAP, 0.1)
    alias = box
    F.silu(box, inplace=True)
    assert calls and alias.lower.min() < (MAP - 0.1).min() and alias.nominal is None


@pytest.mark.parametrize(
    "arguments", [(), (fb.Interval,), ("Interval", torch.sin)], ids=["nothing", "no function", "a name"]
)
def test_a_malformed_rule(arguments: tuple[Any, ...]) -> None:
    with pytest.raises(TypeError):
        fb.rule(*arguments)(lambda x: x)


def test_modules_see_a_tensor_like_value() -> None:
    box = fb.linf_box(MAP, torch.tensor(0.1, requires_grad=True))
    assert (box.dtype, box.device, box.is_cuda, box.requires_grad) == (torch.float32, MAP.device, False, True)
    assert box.is_floating_point() and len(box) == 2 and box.ndimension() == 4 and box.size(-1) == 6
    assert "Interval(shape=(2, 4, 6, 6)" in repr(box) and "with nominal" in repr(box)
    assert sys.getsizeof(box) > 0 and isinstance(box.lower, Tensor)
