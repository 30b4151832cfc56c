"""Remove temporary files of killed servers and trainings at the next start."""

from __future__ import annotations

import tempfile
from pathlib import Path

from radfound.records.durable import remove_temporary_files

from ..studies.uploads import remove_stale

KEPT = ("visual", "own_answers", "evaluations", "activations")
"""Folders of what trainings keep for later ones, beside the status of the newest training."""
PICTURES = "pictures"
"""Folder of processed pictures for vision-language models, in the same place."""

_MAX_SETTINGS_BYTES = 100_000


def remove_leftovers(app_dir: Path, own_files: Path) -> None:
    """Remove temporary files that are no longer needed.

    Parameters
    ----------
    app_dir : Path
        As MONAI Label knows it.
    own_files : Path
        The folder of corrections, adapters and what trainings keep.
    """
    remove_stale()
    for folder in (own_files, *(own_files / name for name in (*KEPT, PICTURES))):
        remove_temporary_files(folder)
    _remove_log_settings(app_dir / "logs")


def _remove_log_settings(logs: Path) -> None:
    """Remove the logging settings that MONAI Label's launcher writes at every start."""
    for path in Path(tempfile.gettempdir()).glob("tmp*.json"):
        try:
            if (
                path.stat().st_size < _MAX_SETTINGS_BYTES
                and str(logs).encode() in path.read_bytes()
            ):
                path.unlink()
        except OSError:  # another user's, or already removed
            continue
