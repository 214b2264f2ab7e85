"""The behaviour that every domain inherits: rules of a base class, and values of two domains that do not mix."""

import pytest
import torch
from torch.nn import functional as F

import fastbound as fb
from fastbound.domains.rules import find_rule
from fastbound.domains.streams import Streams
from fastbound.errors import MissingRuleError


class Loose(Streams):
    """A domain whose ReLU keeps the radius."""


@fb.rule(Loose, torch.relu)
def _relu(input):
    return input.handle(fb.linf_box(input.node.center.relu(), 0.1, nominal=False).node)


def loose(x):
    return Loose(fb.linf_box(x, 0.1, nominal=False).node)


def test_a_linear_function_serves_every_domain_of_streams():
    x = torch.randn(3, 4)
    weight, bias = torch.randn(5, 4), torch.randn(5)
    out = F.linear(loose(x), weight, bias)
    assert type(out) is Loose
    torch.testing.assert_close(out.node.center, F.linear(x, weight, bias))
    torch.testing.assert_close(out.radius, F.linear(torch.full_like(x, 0.1), weight.abs()))
    assert type(torch.cat([out, out], 1).flatten()) is Loose


def test_a_derived_domain_has_its_own_rules():
    assert find_rule(Loose, F.relu) is _relu
    assert find_rule(Loose, F.linear) is find_rule(fb.Interval, F.linear)
    with pytest.raises(MissingRuleError, match=r"torch.sigmoid has no rule for Loose"):
        torch.sigmoid(loose(torch.zeros(1, 2)))


def test_domains_do_not_mix():
    x = torch.zeros(2, 3)
    for mix in (lambda a, b: a + b, lambda a, b: torch.cat([a, b]), lambda a, b: torch.add(b, a)):
        with pytest.raises(TypeError, match=r"(meets|and) a Loose"):
            mix(loose(x), fb.linf_box(x, 0.1))


def test_reading_a_missing_attribute_names_the_domain():
    with pytest.raises(MissingRuleError, match="Loose has no attribute 'cholesky'"):
        loose(torch.zeros(1, 2)).cholesky()
