"""What servers and trainings that were killed have left behind; removed at the next start."""

from __future__ import annotations

import tempfile
from pathlib import Path

from radfound.records.durable import remove_temporary_files

from ..studies.uploads import remove_stale

VISUAL_TOKENS = "visual"
"""The folder, beside the status of the newest training, where visual tokens of studies are kept."""

_MAX_SETTINGS_BYTES = 100_000


def remove_leftovers(app_dir: Path, own_files: Path) -> None:
    """Remove temporary files that nobody needs any more.

    Parameters
    ----------
    app_dir : Path
        As MONAI Label knows it.
    own_files : Path
        Where corrections, adapters and visual tokens are kept.
    """
    remove_stale()
    for folder in (own_files, own_files / VISUAL_TOKENS):
        remove_temporary_files(folder)
    _remove_log_settings(app_dir / "logs")


def _remove_log_settings(logs: Path) -> None:
    """Remove the settings of logging that MONAI Label's launcher writes at every start, and has read by now."""
    for path in Path(tempfile.gettempdir()).glob("tmp*.json"):
        try:
            if (
                path.stat().st_size < _MAX_SETTINGS_BYTES
                and str(logs).encode() in path.read_bytes()
            ):
                path.unlink()
        except OSError:  # of another user, or gone already
            continue
