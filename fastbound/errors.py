"""Exceptions that a user of fastbound can meet, apart from ValueError and TypeError."""


class MissingRuleError(NotImplementedError, AttributeError):
    """An operator or method has no rule in the domain of the value that it received.

    Derives from ``AttributeError`` too, so that ``hasattr(interval, name)`` answers False instead of raising.
    """


class TapeError(RuntimeError):
    """A bound was asked of a tape that can no longer answer: ``backward()`` freed it, or the weights have changed."""


class BackendError(RuntimeError):
    """An explicitly requested backend cannot serve an operator; the message lists the reasons."""
