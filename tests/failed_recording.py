"""Steps that cannot be recorded, and everything that must still work afterwards. Needs a GPU and its own process:

python tests/failed_recording.py    exits with 0 and ends with "whole"
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable
from contextlib import suppress

import torch
from torch import Tensor, nn

from fastbound.train import CaptureError, capture

# Not the current device, where there are several.
DEVICE = torch.device("cuda", torch.cuda.device_count() - 1)
Step = Callable[[Tensor], Tensor]


class Training:
    """A model, its optimiser, and steps that draw random numbers; `at_the_end` of a step something may go wrong."""

    def __init__(self) -> None:
        self.model = nn.Sequential(nn.Linear(64, 512), nn.ReLU(), nn.Dropout(0.1), nn.Linear(512, 1)).to(DEVICE)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3, capturable=True, fused=True)
        self.optimizer.param_groups[0]["lr"] = torch.tensor(1e-3, device=DEVICE)

    def step(self, at_the_end: Callable[[Tensor], None] = lambda loss: None) -> Step:
        def step(x: Tensor) -> Tensor:
            self.optimizer.zero_grad(set_to_none=True)
            loss = self.model(x + torch.rand_like(x)).square().mean()
            loss.backward()
            self.optimizer.step()
            at_the_end(loss)
            return loss.detach()

        return step

    def state(self) -> list[Tensor]:
        """Weights, gradients and what the optimiser keeps, copied."""
        parameters = list(self.model.parameters())
        kept = [value for state in self.optimizer.state.values() for value in state.values()]
        return [t.detach().to("cpu", copy=True) for t in (*parameters, *(p.grad for p in parameters), *kept)]


def batch() -> Tensor:
    return torch.rand(256, 64, device=DEVICE)


def reads(loss: Tensor) -> None:
    loss.item()


def raises(loss: Tensor) -> None:
    if torch.cuda.is_current_stream_capturing():
        raise ValueError("of the step")


def wanders(loss: Tensor) -> None:
    """Raises on another stream than the one that is recorded."""
    if torch.cuda.is_current_stream_capturing():
        torch.cuda.set_stream(torch.cuda.Stream(DEVICE))
        raise ValueError("of the step")


def swallows(loss: Tensor) -> None:
    """Reads a value and swallows the error, so that only the end of the capture fails."""
    with suppress(RuntimeError):
        loss.item()


def waits(loss: Tensor) -> None:
    torch.cuda.synchronize()


def reserved() -> int:
    gc.collect()
    torch.cuda.empty_cache()
    return torch.cuda.memory_reserved(DEVICE)


def drawn(draw: Callable[[], Tensor]) -> list[Tensor]:
    """A draw between two eager ones."""
    torch.manual_seed(3)
    return [torch.rand(5, device=DEVICE).cpu(), draw().cpu(), torch.rand(5, device=DEVICE).cpu()]


def fail(training: Training, at_the_end: Callable[[Tensor], None]) -> None:
    """Four calls of a step, of which the last cannot be recorded; twice, because the fifth tries again."""
    step = capture(training.step(at_the_end), (batch(),))
    for _ in range(3):
        step(batch())
    of_step = at_the_end in (raises, wanders)
    expected = (ValueError, "of the step") if of_step else (CaptureError, "CUDA error: operation")
    for _ in range(2):
        x, before, random = batch(), training.state(), torch.cuda.get_rng_state(DEVICE)
        held = reserved()
        try:
            step(x)
        except expected[0] as problem:
            assert expected[1] in str(problem) and "start a new process" not in str(problem), problem
        else:
            raise AssertionError("the step was recorded")
        assert torch.equal(torch.cuda.get_rng_state(DEVICE), random), "random numbers were used up"
        torch.testing.assert_close(training.state(), before, rtol=0, atol=0)
        assert reserved() <= held, "memory of the failed recording stays"


def check(early: Step, draw: Callable[[], Tensor], eager: list[Tensor]) -> None:
    """Streams, memory, random numbers, replays, a new recording and eager steps."""
    assert torch.cuda.current_stream(DEVICE) == torch.cuda.default_stream(DEVICE)
    held = reserved()
    large = torch.empty(1 << 28, dtype=torch.uint8, device=DEVICE)
    assert torch.cuda.memory_reserved(DEVICE) >= held + (1 << 28)
    del large
    assert reserved() <= held, "empty_cache() frees nothing"
    torch.testing.assert_close(drawn(lambda: torch.rand(5, device=DEVICE)), eager, rtol=0, atol=0)
    torch.testing.assert_close(drawn(draw), eager, rtol=0, atol=0)
    torch.ones(1000).pin_memory()
    assert math.isfinite(early(batch()))
    training = Training()
    weights = [p.detach().cpu() for p in training.model.parameters()]
    step = capture(training.step(), (batch(),))
    for _ in range(6):
        assert math.isfinite(step(batch()))
    for _ in range(3):
        assert math.isfinite(training.step()(batch()))
    assert not any(torch.equal(p.cpu(), w) for p, w in zip(training.model.parameters(), weights)), "nothing was learned"


def main() -> None:
    eager = drawn(lambda: torch.rand(5, device=DEVICE))
    draws = capture(lambda x: torch.rand(5, device=DEVICE), (batch(),))
    early = capture(Training().step(), (batch(),))
    for _ in range(5):
        draws(batch()), early(batch())
    x = batch()
    for at_the_end in (reads, raises, wanders, swallows, waits):
        training = Training()
        fail(training, at_the_end)
        check(early, lambda: draws(x), eager)
        for _ in range(3):
            assert math.isfinite(training.step()(batch()))  # eagerly, as `fastbound train` goes on
        print(f"{at_the_end.__name__}: the process goes on", flush=True)
    print("whole")


if __name__ == "__main__":
    main()
