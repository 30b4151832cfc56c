"""Print what the engine says and keeps silent about: `python -m radfound.benchmark.looking --data KIT`."""

from __future__ import annotations

import argparse
import sys
from contextlib import redirect_stdout
from pathlib import Path

from radfound.benchmark.bench import progress_bar
from radfound.benchmark.looking import silence
from radfound.benchmark.tasks import Source, load_task
from radfound.commands import run_command
from radfound.engine.models.build import build_engine
from radfound.engine.models.settings import one_model


def tables(data: str, model: str, limit: int | None = None) -> str:
    """Return the three tables in Markdown."""
    source = Source(data)
    engine = build_engine(one_model(model).named())
    try:
        version = engine.model_version
        lines = [f"Model `{version.name}` ({version.revision})."]
        if limit is not None:
            lines += ["", f"**At most {limit} studies a split: a trial, not a result.**"]
        vqa, metadata = (load_task(name, source, limit) for name in ("vqa", "metadata"))
        closed = sum(item.group == "closed" for item in vqa.items)
        with progress_bar("closed questions", 2 * closed) as advance:
            lines += silence.closed_curve(engine, vqa, advance)
        with progress_bar("films", 0) as advance:
            lines += silence.film_table(engine, Path(data), advance, limit)
        with progress_bar("fields", len(metadata.items)) as advance:
            lines += silence.field_table(engine, metadata, advance)
    finally:
        engine.close()
    return "\n".join(lines)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m radfound.benchmark.looking")
    parser.add_argument("--data", required=True, help="folder of the data kit")
    parser.add_argument("--model", default="radfound-mini", help="as for `radfound bench`")
    parser.add_argument("--limit", type=int, metavar="N", help="at most N studies per split")
    args = parser.parse_args()
    with redirect_stdout(sys.stderr):
        text = tables(args.data, args.model, args.limit)
    print(text)


if __name__ == "__main__":
    run_command(main)
