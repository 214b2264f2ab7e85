"""Certification, the attack that checks it, and their reports."""

from fastbound.certify.evaluate import certify as certify
from fastbound.certify.pgd import Attack as Attack
from fastbound.certify.pgd import pgd_attack as pgd_attack
from fastbound.certify.pgd_l2 import pgd_attack_l2 as pgd_attack_l2
from fastbound.certify.report import Report as Report
from fastbound.certify.sweep import plot_sweep as plot_sweep
from fastbound.certify.sweep import sweep as sweep
from fastbound.choices import BALLS as BALLS
from fastbound.errors import SoundnessError as SoundnessError
