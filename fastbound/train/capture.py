"""A whole training step as one CUDA graph: recorded once, then replayed on new inputs in a single launch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from numbers import Real
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook

from fastbound.errors import CaptureError
from fastbound.train.recording import NotRestored, first_line, record

# After this many steps lazy initialisation (state of the optimiser, handles and plans of the libraries) is over.
EAGER_CALLS = 3


def capture(step: Callable[..., Any], example_batch: Sequence[Tensor | float]) -> Captured:
    """A callable equivalent to ``step(*batch)`` that replays a CUDA graph from its fourth call on.

    Every call is one step. The first three run eagerly on a side stream; the fourth records the graph, in which
    forward, bounds, loss, backward and optimiser work on fixed memory, and replays it::

        optimizer = torch.optim.Adam(model.parameters(), lr=torch.tensor(1e-3, device="cuda"), capturable=True)

        def step(x, labels, eps, kappa):
            optimizer.zero_grad(set_to_none=True)
            out = model(fb.linf_box(x, eps, 0.0, 1.0))
            ...
            loss.backward()
            optimizer.step()
            return loss

        step = fb.train.capture(step, (x, labels, 0.01, 1.0))
        loss = step(x, labels, 0.02, 0.9)          # as often as wanted
        optimizer.param_groups[0]["lr"].fill_(2e-4)

    Args:
        step: takes the batch, returns tensors (a tensor, None, or a dictionary, list or tuple of these). Its decisions
            in Python are made once, when the graph is recorded. It must set gradients to None before ``backward()``,
            and enter autocast, if any, itself.
        example_batch: the arguments of a step. Tensors, all on one GPU, fix shape, dtype and device; numbers (eps,
            kappa, ...) reach `step` as tensors [] of torch's default dtype, and each call may pass new values.

    Returns:
        A callable with the arguments of `step`. The tensors that it returns carry no gradient and are overwritten by
        the next call. Only the eager calls check values (NaN, labels).

    Raises:
        ValueError: a tensor that is not on a GPU, or that takes gradients; in later calls, a batch with another number
            of arguments, shape, dtype or device; autocast around a call; an optimiser that cannot be captured.
        TypeError: an argument that is neither a tensor nor a number, or a result that is not made of tensors.
        CaptureError: (fourth call) the step does something that a graph cannot record, such as reading a value from the
            device. The call does not count as a step: weights, gradients, random numbers and torch itself are as
            before, so that training can go on eagerly; another call tries to record again. Only side effects of the
            step in Python remain.
        NotRestored: (fourth call) the same, and torch could not be restored: the process cannot go on.
    """
    inputs = StaticInputs(example_batch)
    if inputs.device.type != "cuda":
        raise ValueError(
            f"example_batch: a CUDA graph needs CUDA, but the tensors are on {inputs.device}; move model and batch to "
            "a GPU, or call the step as it is."
        )
    return Captured(step, inputs)


class StaticInputs:
    """The memory from which a captured step reads its arguments."""

    def __init__(self, example_batch: Sequence[Tensor | float]) -> None:
        devices = {value.device for value in example_batch if isinstance(value, Tensor)}
        if len(devices) != 1:
            raise ValueError(
                f"example_batch: wanted tensors on one device, got {', '.join(map(str, devices)) or 'no tensor'}."
            )
        (self.device,) = devices
        self.buffers = [self._buffer(index, value) for index, value in enumerate(example_batch)]
        # The current values of the number buffers, written only on a change: most schedules are mostly constant.
        self._numbers: dict[int, float] = {}

    def _buffer(self, index: int, value: Tensor | float) -> Tensor:
        if isinstance(value, Tensor):
            if value.requires_grad:
                raise ValueError(
                    f"example_batch[{index}]: wanted a tensor without gradients, got one that requires them; a "
                    "captured step has none to give to its inputs. Detach it."
                )
            return torch.empty_like(value)
        if not isinstance(value, Real):
            raise TypeError(f"example_batch[{index}]: wanted a tensor or a number, got {type(value).__name__}.")
        return torch.zeros((), device=self.device)

    def write(self, batch: Sequence[Tensor | float]) -> None:
        """Copies the arguments of one step into the buffers; raises if they are not like the captured ones."""
        if len(batch) != len(self.buffers):
            raise ValueError(f"batch: the step was captured with {len(self.buffers)} arguments, got {len(batch)}.")
        for index, (buffer, value) in enumerate(zip(self.buffers, batch)):
            if isinstance(value, Tensor):
                _require_like(buffer, value, index)
                buffer.copy_(value)
                self._numbers.pop(index, None)
            elif buffer.dim() or not isinstance(value, Real):
                raise TypeError(f"batch[{index}]: the step was captured with a tensor, got {type(value).__name__}.")
            elif self._numbers.get(index) != value:
                buffer.fill_(value)
                self._numbers[index] = float(value)


def _require_like(buffer: Tensor, value: Tensor, index: int) -> None:
    for what in ("shape", "dtype", "device", "requires_grad"):
        wanted, got = getattr(buffer, what), getattr(value, what)
        if wanted != got:
            raise ValueError(
                f"batch[{index}]: the step was captured with {what} {_text(wanted)}, got {_text(got)}; bring the batch "
                "into that form, or capture another step for it."
            )


def _text(value: Any) -> str:
    return str(list(value)) if isinstance(value, torch.Size) else str(value)


class Captured:
    """A step that runs eagerly three times, then is recorded as a CUDA graph and replayed."""

    def __init__(self, step: Callable[..., Any], inputs: StaticInputs) -> None:
        self._step, self._inputs = step, inputs
        self._side = torch.cuda.Stream(inputs.device)
        self._eager_calls = 0
        self._optimizers: set[Optimizer] = set()
        self._graph: torch.cuda.CUDAGraph | None = None
        self._outputs: Any = None

    def __call__(self, *batch: Tensor | float) -> Any:
        if torch.is_autocast_enabled(self._inputs.device.type):
            raise ValueError(
                "step: autocast is on around a captured step, and would keep casts of weights that the step changes; "
                "enter it inside the step."
            )
        with torch.cuda.device(self._inputs.device):
            self._inputs.write(batch)
            if self._eager_calls < EAGER_CALLS:
                self._eager_calls += 1
                return self._run_eagerly()
            if self._graph is None:
                self._graph = self._record()
            self._graph.replay()
            return self._outputs

    def _run_eagerly(self) -> Any:
        current = torch.cuda.current_stream()
        self._side.wait_stream(current)
        with torch.cuda.stream(self._side), _only_capturable_optimizers(self._optimizers):
            outputs = _without_gradients(self._step(*self._inputs.buffers))
        current.wait_stream(self._side)
        for tensor in _tensors(outputs):
            tensor.record_stream(current)
        return outputs

    def _record(self) -> torch.cuda.CUDAGraph:
        parameters = [p for optimizer in self._optimizers for group in optimizer.param_groups for p in group["params"]]
        gradients = [parameter.grad for parameter in parameters]
        try:
            graph, self._outputs = record(lambda: _without_gradients(self._step(*self._inputs.buffers)), self._side)
        except BaseException as problem:
            # The gradients that the failed recording left were never computed.
            for parameter, gradient in zip(parameters, gradients):
                parameter.grad = gradient
            if isinstance(problem, RuntimeError) and not isinstance(problem, NotRestored):
                raise CaptureError(f"the step cannot be recorded as a CUDA graph: {first_line(problem)}") from problem
            raise
        return graph


@contextmanager
def _only_capturable_optimizers(seen: set[Optimizer]) -> Iterator[None]:
    """Refuses steps of optimisers that cannot be captured; adds the optimisers that take one to `seen`."""

    def check(optimizer: Optimizer, *_: Any) -> None:
        require_capturable(optimizer)
        seen.add(optimizer)

    handle = register_optimizer_step_pre_hook(check)
    try:
        yield
    finally:
        handle.remove()


def require_capturable(optimizer: Optimizer) -> None:
    """Raises ValueError if a graph of this optimiser's step would freeze a value that changes between steps."""
    name = type(optimizer).__name__
    for group in optimizer.param_groups:
        devices = {parameter.device.type for parameter in group["params"]} - {"cuda"}
        if devices:
            raise ValueError(
                f"optimizer: a CUDA graph needs CUDA, but parameters are on {', '.join(sorted(devices))}; move the "
                "model to a GPU before the optimiser is made."
            )
        if not group.get("capturable", True):
            raise ValueError(
                f"optimizer: {name} counts its steps on the host; make it with capturable=True to capture its step."
            )
        if not isinstance(group["lr"], Tensor):
            raise ValueError(
                f"optimizer: the learning rate {group['lr']} is a number, which the graph would keep for ever; give "
                f'{name} lr=torch.tensor({group["lr"]}, device="cuda") and change it with group["lr"].fill_(...).'
            )


def _without_gradients(outputs: Any) -> Any:
    """The outputs of a step, detached, so that their autograd graph does not outlive the step."""
    if isinstance(outputs, Tensor):
        return outputs.detach()
    if isinstance(outputs, dict):
        return {name: _without_gradients(value) for name, value in outputs.items()}
    if isinstance(outputs, (list, tuple)):
        return tuple(_without_gradients(value) for value in outputs)
    if outputs is not None:
        raise TypeError(
            f"step: wanted tensors (or None, or a dictionary, list or tuple of them) returned, got "
            f"{type(outputs).__name__}; a replay computes no Python values."
        )
    return None


def _tensors(outputs: Any) -> Iterator[Tensor]:
    if isinstance(outputs, Tensor):
        yield outputs
    elif isinstance(outputs, (dict, tuple)):
        for value in outputs.values() if isinstance(outputs, dict) else outputs:
            yield from _tensors(value)
