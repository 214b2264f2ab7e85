"""The whole study: every property of every relaxation on every network, beside what the networks certify."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import NamedTuple

from torch import Tensor

from fastbound.data import Images, Loader
from fastbound.domains.loosened import LoosenedInterval
from fastbound.methods import METHODS, check_method
from fastbound.study.continuity import REACH, Scan, continuity
from fastbound.study.probe import Probe
from fastbound.study.runs import StudiedRun
from fastbound.study.sensitivity import DEPTHS, growing_networks, sensitivity
from fastbound.study.tightness import Curve, certified_curve, radius_at

RELAXATIONS = ("box", "hbox", "deepz", "crown-ibp-r", "crown")
# Continuity and sensitivity are measured on this many images, the first ones.
PROBED = 2
BATCH = 100


class Measured(NamedTuple):
    """The properties of one relaxation on one network."""

    curve: Curve
    scan: Scan
    sensitivity: float | None


@dataclass(frozen=True)
class Relaxed:
    """The properties of one relaxation: on the networks of the study, and its sensitivity on networks that grow."""

    networks: list[Measured]
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
    """What `study` found. ``fixed`` are the networks of ``relaxations``, in their order; ``loosened`` are the scans of
    the runs with loosened intervals, each by the intervals that trained it."""

    runs: list[StudiedRun]
    fixed: list[StudiedRun]
    relaxations: dict[str, Relaxed]
    loosened: dict[str, Scan]
    samples: int
    seed: int

    @property
    def eps(self) -> float:
        return self.runs[0].settings.eps

    def properties_of(self, run: StudiedRun) -> Relaxed | None:
        """The relaxation whose certificate a run ends with: its own; for crown-ibp, whose mixture ends as IBP, box."""
        name = "box" if run.certified_by == "ibp" else run.certified_by
        return None if run.recipe is None or run.controlled else self.relaxations.get(name)

    def as_dict(self) -> dict[str, object]:
        """As JSON takes it; accuracies and shares are in [0, 1], areas and radii in units of the input."""
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

    def _relaxation(self, found: Relaxed) -> dict[str, object]:
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


def study(
    runs: Sequence[StudiedRun],
    images: Images,
    relaxations: Sequence[str] = RELAXATIONS,
    *,
    seed: int = 0,
    on_part: Callable[[str], None] = lambda part: None,
) -> Study:
    """Measures tightness, continuity and sensitivity of relaxations on the networks of ``runs``.

    The fixed networks are those of all runs without loosened intervals, whatever trained them: every relaxation is
    measured on every network, so none is judged on its own network alone. A relaxation that trained one of them is
    measured too. Where all runs have loosened intervals, their scans are all that there is to measure.

    Args:
        runs: from `read_runs`. images: test images, on the device of the models: all serve tightness, the first two
            the other properties.
        relaxations: names that `fastbound.bound` takes. seed: of directions, weights and growing networks.
        on_part: called before each measurement with its description.

    Raises:
        ValueError: an unknown relaxation; what `fastbound.certify` raises.

    Soundness: certificates are `fastbound.certify`'s; continuity and sensitivity are measurements.
    Source: Jovanovic et al., 2022, arXiv 2102.06700.
    """
    fixed = [run for run in runs if not run.controlled]
    names = _names(relaxations, fixed) if fixed else []
    x, labels = next(iter(Loader(images, min(PROBED, len(images)))))
    settings = runs[0].settings
    grown = growing_networks(tuple(x.shape[1:]), _classes(runs[0], x), seed) if fixed else []
    probes = [Probe(run.model, x, labels, settings.eps) for run in fixed]
    growing = [Probe(network.to(x.device), x, labels, settings.eps) for network in grown]
    found = {}
    for name in names:
        networks = []
        for run, probe in zip(fixed, probes):
            on_part(f"{name} on {run.path}")
            curve = certified_curve(run.model, Loader(images, BATCH), settings.eps, name)
            networks.append(Measured(curve, continuity(probe, name, seed=seed), sensitivity(probe, name, seed=seed)))
        on_part(f"{name} on networks of growing depth")
        found[name] = Relaxed(networks, [sensitivity(probe, name, seed=seed) for probe in growing])
    loosened = {}
    for run in runs:
        if run.controlled:
            on_part(f"loosened intervals on {run.path}")
            loosened[str(run.path)] = continuity(_loosened_probe(run, x, labels), "box", seed=seed)
    return Study(list(runs), fixed, found, loosened, len(images), seed)


def _names(relaxations: Sequence[str], fixed: Sequence[StudiedRun]) -> list[str]:
    """The relaxations asked for, and those that trained a network, each once."""
    for name in relaxations:
        check_method("relaxation", name)
    own = [run.certified_by for run in fixed if run.recipe is not None and run.certified_by in METHODS]
    return list(dict.fromkeys("box" if name == "ibp" else name for name in (*relaxations, *own)))


def _classes(run: StudiedRun, x: Tensor) -> int:
    return run.model(x[:1]).shape[1]


def _loosened_probe(run: StudiedRun, x: Tensor, labels: Tensor) -> Probe:
    recipe = run.recipe
    assert recipe is not None
    return Probe(
        run.model, x, labels, run.settings.eps, lambda box: LoosenedInterval(box, recipe.looseness, recipe.jumps)
    )
