"""Certified training: recipes, schedules, the loop, run folders."""

from fastbound.errors import CaptureError as CaptureError
from fastbound.train.capture import capture as capture
from fastbound.train.loop import train as train
from fastbound.train.runs import load_run as load_run
