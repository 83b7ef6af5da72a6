"""What this machine can run: its processor and memory, the libraries, the models, and every backend tried."""

from __future__ import annotations

from router.doctor.report import Disk, DoctorReport, Fit, Headroom, ModelFits, examine
from router.doctor.trial import LIMIT_SECONDS, FirstToken, Trial
from router.machine import InstructionSet, Machine
from router.packages import Package

__all__ = [
    "LIMIT_SECONDS",
    "Disk",
    "DoctorReport",
    "FirstToken",
    "Fit",
    "Headroom",
    "InstructionSet",
    "Machine",
    "ModelFits",
    "Package",
    "Trial",
    "examine",
]
