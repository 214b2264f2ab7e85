"""The report of a certification: errors, margins and settings, as an object or as JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from fastbound.errors import SoundnessError


@dataclass(frozen=True)
class Report:
    """The outcome of `certify` on `num_samples` samples at radius `eps`.

    margins [N, K-1]: lower bounds of label logit minus every other logit, in the order of `margin_spec`.
    clean_correct [N] bool; attacked_correct [N] bool, or None without an attack (false if clean is wrong).
    rejected [N] bool: the predicted class, right or wrong, has no certificate; None for methods that look at the
    label's margins alone.
    """

    eps: float
    method: str
    margins: Tensor
    clean_correct: Tensor
    attacked_correct: Tensor | None
    precision: str
    attack: str | None = None
    norm: str = "linf"
    rejected: Tensor | None = None
    seconds: float = 0.0

    @property
    def certified(self) -> Tensor:
        """[N] bool: classified correctly, and every margin is greater than 0 (so never if one is NaN)."""
        return self.clean_correct & (self.margins > 0).all(1)

    @property
    def num_samples(self) -> int:
        return len(self.clean_correct)

    @property
    def clean_error(self) -> float:
        return _share(~self.clean_correct)

    @property
    def verified_error(self) -> float:
        """Fraction of samples without a certificate."""
        return _share(~self.certified)

    @property
    def pgd_error(self) -> float | None:
        return None if self.attacked_correct is None else _share(~self.attacked_correct)

    @property
    def rejected_fraction(self) -> float | None:
        return None if self.rejected is None else _share(self.rejected)

    def check(self) -> Report:
        """Returns the report itself; raises SoundnessError for the first certified sample that the attack broke."""
        if self.attacked_correct is not None:
            failures = (self.certified & ~self.attacked_correct).nonzero().flatten()
            if len(failures):
                index = int(failures[0])
                raise SoundnessError(index, float(self.margins[index].min()), self.method, self.eps)
        return self

    def as_dict(self) -> dict[str, object]:
        """The report without the margins, as JSON-compatible data; errors are fractions in [0, 1].

        If rejections are known, it has the accuracy under verification (VRA, 1 - verified_error) and the rejected
        fraction.
        """
        rejection = {} if self.rejected is None else rejection_figures(self.verified_error, _share(self.rejected))
        return {
            "clean_error": self.clean_error,
            "pgd_error": self.pgd_error,
            "verified_error": self.verified_error,
            **rejection,
            "eps": self.eps,
            "norm": self.norm,
            "method": self.method,
            "num_samples": self.num_samples,
            "attack": self.attack,
            "precision": self.precision,
            "seconds": round(self.seconds, 3),
        }

    def save(self, path: str | Path) -> None:
        """Writes `as_dict` as JSON."""
        write_json(path, self.as_dict())


def _share(mask: Tensor) -> float:
    return int(mask.sum()) / len(mask)


def rejection_figures(verified_error: float, rejected: float) -> dict[str, float]:
    """The figures that are usual for globally-robust networks."""
    return {"vra": 1 - verified_error, "rejected_fraction": rejected}


def write_json(path: str | Path, content: object) -> None:
    """Writes JSON in one step, so that the file is never half written."""
    path = Path(path)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    partial.replace(path)


def joined(reports: list[Report]) -> Report:
    """The report of several batches, in order."""
    attacked = [report.attacked_correct for report in reports]
    rejected = [report.rejected for report in reports]
    return replace(
        reports[0],
        margins=torch.cat([report.margins for report in reports]),
        clean_correct=torch.cat([report.clean_correct for report in reports]),
        attacked_correct=None if attacked[0] is None else torch.cat([mask for mask in attacked if mask is not None]),
        rejected=None if rejected[0] is None else torch.cat([mask for mask in rejected if mask is not None]),
        seconds=sum(report.seconds for report in reports),
    )
