"""What this machine can run: its processor and memory, the libraries, the models, and every backend tried."""

from __future__ import annotations

from router.doctor.report import LIMIT_SECONDS, DoctorReport, Fit, ModelFits, examine
from router.doctor.trial import FirstToken, Trial
from router.machine import Disk, HostMachine, InstructionSet, Package

__all__ = [
    "LIMIT_SECONDS",
    "Disk",
    "DoctorReport",
    "FirstToken",
    "Fit",
    "HostMachine",
    "InstructionSet",
    "ModelFits",
    "Package",
    "Trial",
    "examine",
]
