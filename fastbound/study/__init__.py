"""The study of relaxations: tightness, continuity and sensitivity, compared with what training by each one certifies.

Source: Jovanovic et al., 2022, arXiv 2102.06700. One file per property; all bounds come from `fastbound.bound`.
"""

from fastbound.study.continuity import Scan as Scan
from fastbound.study.continuity import continuity as continuity
from fastbound.study.continuity import scan as scan
from fastbound.study.measure import study as study
from fastbound.study.networks import StudiedRun as StudiedRun
from fastbound.study.networks import read_runs as read_runs
from fastbound.study.picture import plot_controlled as plot_controlled
from fastbound.study.picture import plot_study as plot_study
from fastbound.study.probe import Probe as Probe
from fastbound.study.results import Study as Study
from fastbound.study.sensitivity import sensitivity as sensitivity
from fastbound.study.tightness import Curve as Curve
from fastbound.study.tightness import certified_curve as certified_curve
