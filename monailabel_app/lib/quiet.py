"""What must not be said aloud: requests in logs, bars in the output of a training run."""

from __future__ import annotations

import logging


def quieten_monailabel() -> None:
    """Keep MONAI Label from logging requests and results, which hold questions and answers."""
    for name in ("monailabel", "__main__"):  # the latter is MONAI Label's in a training process
        logging.getLogger(name).setLevel(logging.WARNING)


def without_progress_bars() -> None:
    """Keep transformers' bars out of the log, where each redraw is a line."""
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
