"""The whole study: every property of every relaxation, measured on every network."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from fastbound.choices import COMPARED
from fastbound.data import Images, Loader
from fastbound.domains.interval.loosened import LoosenedInterval
from fastbound.methods import METHODS, check_method
from fastbound.study.continuity import continuity
from fastbound.study.networks import StudiedRun
from fastbound.study.probe import Probe
from fastbound.study.results import NetworkResult, RelaxationResult, Study
from fastbound.study.sensitivity import growing_networks, sensitivity
from fastbound.study.tightness import certified_curve

# Continuity and sensitivity are measured on this many images, the first ones.
PROBED = 2
BATCH = 100


def study(
    runs: Sequence[StudiedRun],
    images: Images,
    relaxations: Sequence[str] = COMPARED,
    *,
    seed: int = 0,
    on_part: Callable[[str], None] = lambda part: None,
) -> Study:
    """Measures tightness, continuity and sensitivity of relaxations on the networks of ``runs``.

    The fixed networks are those of all runs without loosened intervals, whatever trained them. Every relaxation is
    measured on every network, so none is judged only by the network that it trained. Relaxations that trained one of
    the networks are measured too. If all runs have loosened intervals, only their scans are measured.

    Args:
        runs: from `read_runs`.
        images: test images, on the device of the models; tightness uses all, the other properties the first two.
        relaxations: names that `fastbound.bound` takes.
        seed: of directions, weights and growing networks.
        on_part: called before each measurement with its description.

    Raises:
        ValueError: an unknown relaxation; what `fastbound.certify` raises.

    Soundness: certificates are `fastbound.certify`'s; continuity and sensitivity are measurements.
    Source: Jovanovic et al., 2022, arXiv 2102.06700.
    """
    fixed = [run for run in runs if not run.controlled]
    names = _names(relaxations, fixed)
    x, labels = next(iter(Loader(images, min(PROBED, len(images)))))
    eps, classes = runs[0].settings.eps, runs[0].model(x[:1]).shape[1]
    relaxed = {}
    if fixed:
        probes = [Probe(run.model, x, labels, eps) for run in fixed]
        networks = growing_networks(tuple(x.shape[1:]), classes, seed)
        growing = [Probe(network.to(x.device), x, labels, eps) for network in networks]
        for name in names:
            measured = []
            for run, probe in zip(fixed, probes):
                on_part(f"{name} on {run.path}")
                curve = certified_curve(run.model, Loader(images, BATCH), eps, name)
                scan, share = continuity(probe, name, seed=seed), sensitivity(probe, name, seed=seed)
                measured.append(NetworkResult(curve, scan, share))
            on_part(f"{name} on networks of growing depth")
            relaxed[name] = RelaxationResult(measured, [sensitivity(probe, name, seed=seed) for probe in growing])
    loosened = {}
    for run in runs:
        if run.controlled:
            on_part(f"loosened intervals on {run.path}")
            loosened[str(run.path)] = continuity(_loosened_probe(run, x, labels), "box", seed=seed)
    return Study(list(runs), fixed, relaxed, loosened, len(images), seed)


def _names(relaxations: Sequence[str], fixed: Sequence[StudiedRun]) -> list[str]:
    """The relaxations asked for, and those that trained a network, each once."""
    for name in relaxations:
        check_method("relaxation", name)
    own = [run.certified_by for run in fixed if run.recipe is not None and run.certified_by in METHODS]
    return list(dict.fromkeys("box" if name == "ibp" else name for name in (*relaxations, *own)))


def _loosened_probe(run: StudiedRun, x: Tensor, labels: Tensor) -> Probe:
    recipe = run.recipe
    assert recipe is not None
    return Probe(
        run.model, x, labels, run.settings.eps, lambda box: LoosenedInterval(box, recipe.looseness, recipe.jumps)
    )
