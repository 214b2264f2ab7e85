"""A globally-robust network, certified in l2 balls by one Lipschitz constant, in a plain PyTorch loop.

    python examples/gloro.py                            # digits, which ship with fastbound
    python examples/gloro.py --data-dir DIR --eps 0.3   # MNIST, IDX files in DIR

Source: Leino, Wang & Fredrikson, ICML 2021, arXiv 2102.08452.
"""

import argparse
import itertools

import torch

import fastbound as fb
from fastbound import data, models

parser = argparse.ArgumentParser()
parser.add_argument("--data-dir")
parser.add_argument("--eps", type=float, default=0.2)
parser.add_argument("--epochs", type=int, default=40)
parser.add_argument("--steps", type=int, help="train for this many steps instead")
options = parser.parse_args()

torch.manual_seed(0)
fb.keep_freed_memory()
images = data.load("mnist", options.data_dir) if options.data_dir else data.load("digits")
loader = data.Loader(images.train, 100, shuffle=True, drop_last=True)
model = models.build("gloro-2c2f", images.input_shape, images.num_classes, activation="minmax")
optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
state = fb.LipschitzState()  # one for the run: its power iterates follow the weights from step to step

total = options.steps or options.epochs * len(loader)
ramp = 0.5 * total
batches = (batch for epoch in itertools.count() for batch in loader.epoch(epoch))
for step, (x, labels) in zip(range(total), batches):
    # The radius grows over the ramp, to a little more than the one that is certified.
    eps = 1.1 * options.eps * min(step / ramp, 1.0)

    out = model(fb.lipschitz(x, state))
    loss = fb.losses.gloro_cross_entropy(out, labels, eps)

    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

# Power iteration trains but does not certify: certify proves an upper bound of every layer's norm.
report = fb.certify(model, data.Loader(images.test, 256), options.eps, norm="l2")
errors = f"clean {report.clean_error:.2%}, PGD {report.pgd_error:.2%}, verified {report.verified_error:.2%}"
print(f"errors after {total} steps: {errors}")
