"""Merge the output of instruction tuning into a Hugging Face checkpoint folder, to serve or benchmark.

`python -m training.stages.merge --trained DIR --out FOLDER [--model NAME] [--language-model FOLDER]`, with the model
and language model used in training; then `make serve MODEL=FOLDER`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from radfound.exceptions import RadFoundError
from radfound.model.checkpoints import assemble
from training.stages.common import stage_model


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m training.stages.merge", description=__doc__)
    parser.add_argument("--trained", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="radfound-mini")
    parser.add_argument("--language-model")
    given = parser.parse_args(arguments)
    try:
        assemble(given.trained, *stage_model(given.model, given.language_model), given.out)
    except RadFoundError as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
