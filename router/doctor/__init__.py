"""What this machine can run: its processor and memory, the libraries, the models, and every backend tried."""

from __future__ import annotations

from router.doctor.fits import Fit, ModelFits
from router.doctor.machine import Disk, InstructionSet, Machine
from router.doctor.report import LIMIT_SECONDS, Report, examine
from router.doctor.trial import FirstToken, Trial
from router.doctor.versions import Package

__all__ = [
    "LIMIT_SECONDS",
    "Disk",
    "FirstToken",
    "Fit",
    "InstructionSet",
    "Machine",
    "ModelFits",
    "Package",
    "Report",
    "Trial",
    "examine",
]
