"""The results of a study: its runs, and the properties of every relaxation on every network."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean
from typing import NamedTuple

from fastbound.study.continuity import REACH, Scan
from fastbound.study.networks import StudiedRun
from fastbound.study.sensitivity import DEPTHS
from fastbound.study.tightness import Curve, radius_at


class NetworkResult(NamedTuple):
    """The properties of one relaxation on one network."""

    curve: Curve
    scan: Scan
    sensitivity: float | None


@dataclass(frozen=True)
class RelaxationResult:
    """The properties of one relaxation on the networks of the study; its sensitivity on networks of growing depth."""

    networks: list[NetworkResult]
    growth: list[float | None]  # over `DEPTHS`

    @property
    def area(self) -> float:
        return fmean(one.curve.area for one in self.networks)

    @property
    def changes(self) -> list[float]:
        return [fmean(changes) for changes in zip(*(one.scan.changes for one in self.networks))]

    @property
    def jump_share(self) -> float:
        return self.changes[-1]

    @property
    def continuous(self) -> bool:
        """On every network."""
        return all(one.scan.continuous for one in self.networks)

    @property
    def sensitivity(self) -> float | None:
        """The mean over the networks that have one."""
        found = [one.sensitivity for one in self.networks if one.sensitivity is not None]
        return fmean(found) if found else None

    def mean_accuracy(self, radius: float) -> float:
        return fmean(one.curve.at(radius) for one in self.networks)

    def radii(self, eps: float) -> list[float]:
        """The radii of the longest curve."""
        return [radius_at(index, eps) for index in range(max(len(one.curve.radii) for one in self.networks))]


@dataclass(frozen=True)
class Study:
    """The results of `study`. ``fixed`` are the runs whose networks ``relaxations`` were measured on, in their order;
    ``loosened`` are the scans of the runs with loosened intervals, each with the intervals that trained it."""

    runs: list[StudiedRun]
    fixed: list[StudiedRun]
    relaxations: dict[str, RelaxationResult]
    loosened: dict[str, Scan]
    samples: int
    seed: int

    @property
    def eps(self) -> float:
        return self.runs[0].settings.eps

    def properties_of(self, run: StudiedRun) -> RelaxationResult | None:
        """The properties of the relaxation that certifies a run: its own, or box for crown-ibp, which ends as IBP."""
        name = "box" if run.certified_by == "ibp" else run.certified_by
        return None if run.recipe is None or run.controlled else self.relaxations.get(name)

    def as_dict(self) -> dict[str, object]:
        """The results as JSON-compatible data: accuracies and shares in [0, 1], areas and radii in input units."""
        settings = self.runs[0].settings
        return {
            "dataset": settings.dataset,
            "model": settings.model,
            "eps": settings.eps,
            "num_samples": self.samples,
            "seed": self.seed,
            "reach": REACH,
            "depths": list(DEPTHS),
            "fixed_networks": [str(run.path) for run in self.fixed],
            "runs": {str(run.path): self._run(run) for run in self.runs},
            "relaxations": {name: self._relaxation(found) for name, found in self.relaxations.items()},
        }

    def _run(self, run: StudiedRun) -> dict[str, object]:
        scan = self.loosened.get(str(run.path))
        return {**run.as_dict(), **({} if scan is None else {"jump_share": scan.jump_share})}

    def _relaxation(self, found: RelaxationResult) -> dict[str, object]:
        return {
            "area": found.area,
            "jump_share": found.jump_share,
            "continuous": found.continuous,
            "changes": found.changes,
            "sensitivity": found.sensitivity,
            "sensitivity_by_depth": found.growth,
            "networks": {
                str(run.path): {
                    "area": one.curve.area,
                    "radii": one.curve.radii,
                    "certified_accuracies": one.curve.accuracies,
                    "jump_share": one.scan.jump_share,
                    "changes": one.scan.changes,
                    "sensitivity": one.sensitivity,
                }
                for run, one in zip(self.fixed, found.networks)
            },
        }
