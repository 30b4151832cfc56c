"""MONAI Label's background processes, with their request sent through a pipe.

MONAI Label passes the request on the command line, where every user of the machine can read it,
including the questions of a batch and the author of a training.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from monailabel.utils.async_tasks import utils

import monailabel_app
from radfound.commands import TRAINING_ENVIRONMENT

logger = logging.getLogger(__name__)

_ROOT = Path(monailabel_app.__file__).resolve().parents[1]
_LINES_KEPT = 20

TASK_VARIABLE = "RADFOUND_TASK"
"""Environment variable of a background process: the id of its task."""


def hide_requests() -> None:
    """Make MONAI Label start its background processes with `run`."""
    utils._task_func = run


def run(
    task: dict[str, Any], method: str, callback: Callable[[dict[str, Any]], None] | None = None
) -> None:
    """Run a task of MONAI Label in a process of its own, and keep the last lines of its output.

    The lines are returned by `GET /train/`, for example. They are not logged, since they may name
    studies.
    """
    task["request"]["gpus"] = "all"
    processes = utils.background_processes[method]
    process = subprocess.Popen(
        [sys.executable, "-m", __name__, method],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**_environment(method), TASK_VARIABLE: task["id"]},
    )
    processes[task["id"]] = process
    task["status"], task["details"] = "RUNNING", deque(maxlen=_LINES_KEPT)
    assert process.stdin and process.stdout
    with suppress(BrokenPipeError), process.stdin:  # the process may be stopped already
        json.dump(task["request"], process.stdin)
    for line in map(str.rstrip, process.stdout):
        if line:
            task["details"].append(line)
    failed = process.wait() != 0
    processes.pop(task["id"], None)
    task["end_ts"] = datetime.today().strftime("%Y-%m-%d %H:%M:%S")
    if task["status"] == "RUNNING":
        task["status"] = "ERROR" if failed else "DONE"
    logger.info("%s: %s", method, task["status"])
    if callback:
        callback(task)


def _environment(method: str) -> dict[str, str]:
    paths = [str(_ROOT), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
    if method == "train":
        environment["MONAI_LABEL_DATASTORE_AUTO_RELOAD"] = "false"
        environment = TRAINING_ENVIRONMENT | environment
    return environment


def main() -> None:
    """Run the request from standard input, as a background process."""
    from monailabel.interfaces.utils.app import run_main

    sys.argv = [sys.argv[0], "--method", sys.argv[1], "--request", sys.stdin.read()]
    run_main()


if __name__ == "__main__":
    main()
