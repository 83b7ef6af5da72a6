"""The most memory this process held, as the system tells it."""

from __future__ import annotations

from pathlib import Path

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def reset_peak() -> None:
    """Let the peak begin anew at what is held now; where the system does not offer that, it goes on."""
    try:
        _RESET.write_text("5")
    except OSError:
        return


def peak_bytes() -> int | None:
    """Most bytes resident since the process began or the peak was reset, mapped files included.

    None where the system keeps no such figure of a process alone (getrusage's includes its parent's).
    """
    try:
        lines = _STATUS.read_text("ascii", "replace").splitlines()
    except OSError:
        return None
    found = [int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")]
    return found[0] if found else None
