"""Certification: what counts as certified, the attack, modes, precision, errors."""

import json
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import fastbound as fb
from fastbound import data
from fastbound.certify import Attack, Report, SoundnessError, certify, pgd_attack, plot_sweep, sweep
from fastbound.certify.modes import evaluation_mode, ieee_float32, training_precision
from fastbound.certify.pgd import worst_margin


def linear_model(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    """Two classes on two pixels, logit 0 - logit 1 = 2 x0 - x1 - 0.4: every number below follows by hand."""
    layer = nn.Linear(2, 2, dtype=dtype)
    layer.weight.data = torch.tensor([[2.0, 0.0], [0.0, 1.0]], dtype=dtype)
    layer.bias.data = torch.tensor([0.0, 0.4], dtype=dtype)
    return nn.Sequential(layer)


X = torch.tensor([[0.5, 0.1], [0.5, 0.3], [0.5, 0.7], [0.1, 0.9]])
Y = torch.tensor([0, 0, 0, 1])
# margins of the label at eps 0.1: 0.5 - 0.3, 0.3 - 0.3, -0.1 - 0.3, 1.1 - 0.3 + 0 (x1 + eps = 1.0, nothing is clipped)
MARGINS = torch.tensor([0.2, 0.0, -0.4, 0.8])


def test_errors_and_margins_by_hand():
    report = certify(linear_model(torch.float64), [(X, Y)], 0.1)
    torch.testing.assert_close(report.margins.squeeze(1).float(), MARGINS, atol=1e-6, rtol=0)
    assert report.clean_correct.tolist() == [True, True, False, True]
    assert (report.clean_error, report.num_samples) == (0.25, 4)
    assert report.verified_error == 0.5 and report.pgd_error in (0.25, 0.5)


def test_certified_needs_a_margin_above_zero_and_a_correct_prediction():
    def report(margins, correct):
        return Report(0.1, "ibp", torch.tensor(margins), torch.tensor(correct), None, "float32")

    made = report([[1.0, 0.1], [1.0, 0.0], [1.0, -0.1], [1.0, math.nan], [1.0, 1.0]], [True, True, True, True, False])
    assert made.certified.tolist() == [True, False, False, False, False]
    assert made.verified_error == 0.8 and made.pgd_error is None


def test_the_clipped_box_certifies_more():
    x, y = torch.tensor([[0.95, 1.0]]), torch.tensor([0])
    # 2 x0 - x1 - 0.4 with x0 >= 0.75, x1 <= 1 (clipped) or 1.2: margin 0.1 or -0.1
    assert certify(linear_model(), [(x, y)], 0.2).verified_error == 0
    assert certify(linear_model(), [(x, y)], 0.2, lower=None, upper=None).verified_error == 1


def test_limit_counts_samples_across_batches():
    loader = data.Loader(data.load("digits").test, 32)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    assert certify(model, loader, 0.01, limit=70, attack=None).num_samples == 70
    assert certify(model, loader, 0.01, attack=None).num_samples == 360
    whole = certify(model, loader, 0.01, attack=None)
    other = certify(model, data.Loader(data.load("digits").test, 360), 0.01, attack=None)
    torch.testing.assert_close(whole.margins, other.margins)


def test_seen_batches_are_reported():
    seen = []
    certify(
        linear_model(), [(X[:1], Y[:1]), (X[1:], Y[1:])], 0.1, on_batch=lambda report: seen.append(report.num_samples)
    )
    assert seen == [1, 3]


def random_model(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


def trained_model() -> nn.Sequential:
    model = random_model()
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for epoch in range(8):
        for x, y in data.Loader(data.load("digits").train, 128, shuffle=True).epoch(epoch):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
    return model


@pytest.fixture(scope="module")
def digits_model():
    return trained_model()


TEST = data.load("digits").test


def test_errors_are_ordered_and_grow_with_eps(digits_model):
    reports = sweep(digits_model, data.Loader(TEST, 128), [0.0, 0.01, 0.03, 0.1])
    for report in reports:
        assert report.clean_error <= report.pgd_error <= report.verified_error
    for name in ("pgd_error", "verified_error"):
        values = [getattr(report, name) for report in reports]
        assert values == sorted(values)
    assert reports[0].clean_error == reports[0].pgd_error == reports[0].verified_error < 0.1
    assert reports[-1].pgd_error > 0.3


def test_pgd_finds_the_exact_worst_case_of_a_linear_model():
    x, eps = torch.rand(50, 2), 0.15
    labels = torch.randint(2, (50,))
    model = linear_model()
    points, broken = pgd_attack(model, x, labels, eps, attack=Attack(steps=10))
    sign = 1 - 2 * labels
    step = torch.tensor([2.0, -1.0]) * sign.unsqueeze(1)  # gradient of the label's margin
    worst = (x - eps * step.sign()).clamp(0, 1)
    torch.testing.assert_close(points, worst)
    assert torch.equal(broken, model(worst).argmax(1) != labels)


def test_pgd_points_stay_in_the_clipped_box(digits_model):
    x, y = next(iter(data.Loader(TEST, 100)))
    points, broken = pgd_attack(digits_model, x, y, 0.1, attack=Attack(steps=7, restarts=2))
    assert points.min() >= 0 and points.max() <= 1
    assert torch.all(points <= x + 0.1) and torch.all(points >= x - 0.1)
    assert torch.equal(digits_model(points).argmax(1) != y, broken)
    assert broken.any() and not points.requires_grad


def test_pgd_is_stronger_than_random_points_and_more_restarts_never_hurt(digits_model):
    x, y = next(iter(data.Loader(TEST, 200)))
    eps = 0.06
    random = torch.zeros(200, dtype=torch.bool)
    for _ in range(20):
        noisy = (x + eps * (2 * torch.rand_like(x) - 1).sign()).clamp(0, 1)
        random |= digits_model(noisy).argmax(1) != y
    one = pgd_attack(digits_model, x, y, eps, generator=torch.Generator().manual_seed(0))[1]
    more = pgd_attack(digits_model, x, y, eps, attack=Attack(restarts=3), generator=torch.Generator().manual_seed(0))[1]
    assert one.sum() > random.sum() + 20
    assert torch.all(more | ~one)


def test_certification_leaves_gradients_and_random_state_alone(digits_model):
    model = random_model()
    before = torch.get_rng_state()
    certify(model, data.Loader(TEST, 64), 0.02, limit=64)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(before, torch.get_rng_state())


def test_attack_is_reproducible(digits_model):
    first, second = (certify(digits_model, data.Loader(TEST, 64), 0.05, seed=3) for _ in range(2))
    assert torch.equal(first.attacked_correct, second.attacked_correct)


def test_worst_margin():
    logits = torch.tensor([[3.0, 1.0, 2.0], [0.0, 5.0, 5.0]])
    assert worst_margin(logits, torch.tensor([0, 1])).tolist() == [-1, 0]


class _Lying(nn.Module):
    """A model whose bounds belong to another function than its values: a soundness failure for attacks to find."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = linear_model()[0]

    def forward(self, x):
        if isinstance(x, fb.Interval):
            return self.layer(x * 0.0 + 1.0)
        return self.layer(x)


def test_a_broken_certificate_is_an_error_that_names_the_sample():
    # For the bounds every input is (1, 1): margin 0.6 for class 0. Sample 2 (0.21 from the border) can be attacked.
    x = torch.tensor([[0.9, 0.0], [0.9, 0.0], [0.35, 0.1], [0.9, 0.0]])
    with pytest.raises(SoundnessError, match=r"sample 2 is certified by ibp at eps 0\.1") as caught:
        certify(_Lying(), [(x[:2], torch.zeros(2, dtype=torch.long)), (x[2:], torch.zeros(2, dtype=torch.long))], 0.1)
    assert caught.value.index == 2


def batch_norm_model(**options) -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16, **options), nn.ReLU(), nn.Linear(16, 10))


def test_evaluation_mode_inside_and_every_mode_restored():
    model = batch_norm_model()
    model.train()
    model[3].eval()
    modes = [module.training for module in model.modules()]
    before = model[2].running_mean.clone()
    certify(model, data.Loader(TEST, 64), 0.01, limit=64)
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(before, model[2].running_mean)
    with pytest.raises(ZeroDivisionError), evaluation_mode(model):
        assert not any(module.training for module in model.modules())
        _ = 1 / 0
    assert [module.training for module in model.modules()] == modes


def test_batch_statistics_are_refused():
    with pytest.raises(ValueError, match=r"2 \(BatchNorm1d\) has track_running_stats=False"):
        certify(batch_norm_model(track_running_stats=False), data.Loader(TEST, 64), 0.01)


def test_precision_is_ieee_inside_and_the_users_outside():
    backends = torch.backends
    switches = (backends, backends.cudnn.conv, backends.mkldnn.matmul, backends.mkldnn.conv)
    before = [switch.fp32_precision for switch in switches]
    seen = {}

    class Spy(nn.Flatten):
        def forward(self, x):
            seen["general"] = backends.fp32_precision
            seen["switches"] = {
                backends.cuda.matmul.fp32_precision,
                backends.cudnn.conv.fp32_precision,
                backends.mkldnn.matmul.fp32_precision,
                backends.mkldnn.conv.fp32_precision,
            }
            seen["autocast"] = torch.is_autocast_enabled("cpu")
            return super().forward(x)

    try:
        backends.fp32_precision = "tf32"
        backends.mkldnn.matmul.fp32_precision = "bf16"
        with torch.autocast("cpu", torch.bfloat16):
            report = certify(nn.Sequential(Spy(), nn.Linear(64, 10)), data.Loader(TEST, 64), 0.01, limit=64)
        assert seen == {"general": "ieee", "switches": {"ieee"}, "autocast": False}
        assert report.precision.startswith("float32 (ieee)") and report.margins.dtype == torch.float32
        assert backends.mkldnn.matmul.fp32_precision == "bf16" and backends.mkldnn.conv.fp32_precision == "tf32"
        assert training_precision("cpu") == "float32 (bf16 matrix products, tf32 convolutions)"
        backends.fp32_precision = "ieee"
        # a switch that inherited before inherits again
        assert backends.mkldnn.conv.fp32_precision == "ieee"
    finally:
        backends.mkldnn.matmul.fp32_precision = "none"
        backends.cudnn.conv.fp32_precision = before[1]
        backends.fp32_precision = before[0]
    assert [switch.fp32_precision for switch in switches] == before


def test_precision_is_restored_after_an_error():
    before = torch.backends.mkldnn.matmul.fp32_precision
    with pytest.raises(ZeroDivisionError), ieee_float32():
        _ = 1 / 0
    assert torch.backends.mkldnn.matmul.fp32_precision == before


def test_float64_models_are_certified_in_float64(digits_model):
    report = certify(linear_model(torch.float64), [(X, Y)], 0.1)
    assert report.margins.dtype == torch.float64 and report.precision.startswith("float64")


@pytest.mark.parametrize("method", ["crown-ibp", "crown"])
def test_backward_methods_certify(digits_model, method):
    report = certify(digits_model, data.Loader(TEST, 60), 0.02, method, limit=60)
    assert report.method == method and report.clean_error <= report.pgd_error <= report.verified_error


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"eps": -0.1}, ValueError, "eps: wanted a finite radius of at least 0, got -0.1"),
        ({"eps": math.nan}, ValueError, "eps: wanted a finite radius"),
        ({"eps": math.inf}, ValueError, "eps: wanted a finite radius"),
        ({"method": "ipb"}, ValueError, r"method: wanted one of ibp, crown-ibp, crown, .*, lp, lipschitz, got 'ipb'"),
        ({"limit": 0}, ValueError, "limit: wanted at least 1 sample, got 0"),
        ({"loader": []}, ValueError, "gave no sample"),
        ({"loader": [(X, torch.tensor([0, 0, 0, 2]))]}, ValueError, "label 2 is out of range for 2 classes"),
        ({"loader": [(X, torch.tensor([0, -1, 0, 1]))]}, ValueError, "label -1 is out of range"),
        ({"loader": [(X, Y.float())]}, TypeError, "integer labels"),
        ({"loader": [(X, Y[:3])]}, ValueError, "wanted labels"),
        ({"loader": [(X * math.nan, Y)]}, ValueError, r"NaN|finite"),
        ({"model": linear_model(torch.bfloat16)}, TypeError, r"bfloat16; call model\.float"),
    ],
)
def test_bad_input(change, error, message):
    arguments = {"model": linear_model(), "loader": [(X, Y)], "eps": 0.1, **change}
    with pytest.raises(error, match=message):
        certify(**arguments)


@pytest.mark.parametrize("options", [{"steps": 0}, {"restarts": 0}, {"step_size": 0.0}, {"step_size": math.nan}])
def test_bad_attack(options):
    with pytest.raises(ValueError, match="attack: wanted"):
        Attack(**options)


def test_report_as_json_and_picture(tmp_path):
    report = certify(linear_model(), [(X, Y)], 0.1)
    report.save(tmp_path / "report.json")
    content = json.loads((tmp_path / "report.json").read_text())
    assert {"clean_error", "verified_error", "pgd_error", "eps", "method", "num_samples", "precision"} <= set(content)
    assert content["clean_error"] == 0.25 and content["eps"] == 0.1
    plot_sweep(sweep(linear_model(), [(X, Y)], [0.0, 0.1, 0.2]), tmp_path / "sweep.png")
    assert (tmp_path / "sweep.png").read_bytes()[:4] == b"\x89PNG"
    with pytest.raises(ValueError, match="at least one radius"):
        sweep(linear_model(), [(X, Y)], [])


def test_certify_is_a_public_name():
    assert fb.certify is certify
