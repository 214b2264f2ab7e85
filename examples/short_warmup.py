"""Certified training with short warm-up (IBP from its own initialisation, regularised), in a plain PyTorch loop.

    python examples/short_warmup.py                            # digits, which ship with fastbound
    python examples/short_warmup.py --data-dir DIR --eps 0.4   # MNIST, IDX files in DIR

Source: Shi et al., 2021, arXiv 2103.17268.
"""

import argparse
import itertools
import math

import torch
import torch.nn.functional as F
from torch import nn

import fastbound as fb
from fastbound import data
from fastbound.train.initialisation import initialise
from fastbound.train.regularisers import warmup_regularisers, with_moments

parser = argparse.ArgumentParser()
parser.add_argument("--data-dir")
parser.add_argument("--eps", type=float, default=0.1)
parser.add_argument("--epochs", type=int, default=40)
parser.add_argument("--steps", type=int, help="train for this many steps instead")
options = parser.parse_args()

torch.manual_seed(0)
fb.keep_freed_memory()
images = data.load("mnist", options.data_dir) if options.data_dir else data.load("digits")
loader = data.Loader(images.train, 100, shuffle=True, drop_last=True)
sizes = [math.prod(images.input_shape), 128, 128]
# BatchNorm after every layer but the last is part of the method.
hidden = [[nn.Linear(i, o), nn.BatchNorm1d(o), nn.ReLU()] for i, o in itertools.pairwise(sizes)]
model = nn.Sequential(nn.Flatten(), *itertools.chain(*hidden), nn.Linear(sizes[-1], images.num_classes))
initialise(model, "ibp", torch.zeros(1, *images.input_shape))
optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)

total = options.steps or options.epochs * len(loader)
warmup, ramp = 0.05 * total, 0.3 * total
batches = (batch for epoch in itertools.count() for batch in loader.epoch(epoch))
for step, (x, labels) in zip(range(total), batches):
    progress = min(max((step - warmup) / ramp, 0.0), 1.0)
    weight = 0.5 * (1 - progress)

    # Before the ramp the clean loss replaces the robust one, and the regularisers see bounds of a tiny radius.
    out = model(with_moments(fb.linf_box(x, max(options.eps * progress, 1e-6), lower=0.0, upper=1.0)))
    margins = fb.bound(out, method="ibp", spec=fb.margin_spec(labels, images.num_classes))
    loss = fb.losses.robust_cross_entropy(margins) if progress else F.cross_entropy(out.nominal, labels)
    loss = loss + weight * sum(warmup_regularisers(out))

    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
    optimizer.step()

report = fb.certify(model, data.Loader(images.test, 256), options.eps)
errors = f"clean {report.clean_error:.2%}, PGD {report.pgd_error:.2%}, verified {report.verified_error:.2%}"
print(f"errors after {total} steps: {errors}")
