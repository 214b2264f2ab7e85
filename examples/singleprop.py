"""Training by SingleProp, a surrogate that is not a bound, in a plain PyTorch loop; certified by interval bounds.

    python examples/singleprop.py                            # digits, which ship with fastbound
    python examples/singleprop.py --data-dir DIR --eps 0.3   # MNIST, IDX files in DIR

Source: Boopathy et al., 2021, arXiv 2102.01208.
"""

import argparse
import itertools

import torch
import torch.nn.functional as F

import fastbound as fb
from fastbound import data, models

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
model = models.build(models.default_network(images.input_shape), images.input_shape, images.num_classes)
optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)

total = options.steps or options.epochs * len(loader)
warmup, ramp = 0.05 * total, 0.55 * total
batches = (batch for epoch in itertools.count() for batch in loader.epoch(epoch))
for step, (x, labels) in zip(range(total), batches):
    # The radius grows over the ramp, and the moved logits take over half of the loss.
    progress = min(max((step - warmup) / ramp, 0.0), 1.0)
    eps, kappa = options.eps * progress, 1 - 0.5 * progress

    out = model(fb.singleprop(x, eps, variant="zero"))
    moved = fb.losses.singleprop_cross_entropy(out, labels)
    loss = kappa * F.cross_entropy(out.nominal, labels) + (1 - kappa) * moved

    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

report = fb.certify(model, data.Loader(images.test, 256), options.eps)
errors = f"clean {report.clean_error:.2%}, PGD {report.pgd_error:.2%}, verified {report.verified_error:.2%}"
print(f"errors after {total} steps: {errors}")
