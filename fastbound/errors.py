"""Exceptions that a user of fastbound can meet, apart from ValueError and TypeError."""


class MissingRuleError(NotImplementedError, AttributeError):
    """An operator or method has no rule in the domain of the value that it received.

    Derives from ``AttributeError`` too, so that ``hasattr(interval, name)`` answers False instead of raising.
    """


class TapeError(RuntimeError):
    """A bound needs a tape that is no longer valid: ``backward()`` freed it, or the weights have changed since."""


class BackendError(RuntimeError):
    """An explicitly requested backend cannot serve an operator; the message lists the reasons."""


class SoundnessError(RuntimeError):
    """An attack broke a certified sample: the certificate is wrong. `index` is the sample's position in the loader."""

    def __init__(self, index: int, margin: float, method: str, eps: float) -> None:
        super().__init__(
            f"soundness failure: sample {index} is certified by {method} at eps {eps:g} with margin {margin:.6g}, and "
            "the attack found a misclassified point inside its ball. No number of this run can be trusted; please "
            "report the model and the sample."
        )
        self.index = index


class CaptureError(RuntimeError):
    """A step does something that a CUDA graph cannot record."""


class Diverged(RuntimeError):
    """The loss of a run became infinite or NaN."""


class Interrupted(RuntimeError):
    """The run was stopped from outside; the message says how to continue."""


class ProcessLost(RuntimeError):
    """Another training process ended, so this one cannot go on."""
