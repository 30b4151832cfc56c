"""Fuzz a real server with schemathesis, from its OpenAPI description.

Run through `make fuzz`. Prints the counts; returns 1 if the server answered anything with a 5xx,
died, or a file outside its own folders was touched.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import requests
from fuzz_edges import send_edges
from serve import put_samples

ROOT = Path(__file__).resolve().parents[1]
START_S = 180
STOP_S = 30
LEFT_OUT = r"^/login"  # exists only with MONAI Label's own authentication


def main() -> int:
    """Fuzz for the requested time."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--schemathesis", type=Path, required=True, help="its executable")
    parser.add_argument("--seconds", type=int, default=300)
    parser.add_argument("--seed", type=int, default=6)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        outside = folder / "outside"
        outside.mkdir()
        (outside / "secret.txt").write_text("not to be touched\n")
        (folder / "home").mkdir()
        (folder / "studies").mkdir()
        (folder / "tmp").mkdir()
        put_samples(folder / "studies")
        server, url = start_server(folder)
        before = _tree(folder)
        try:
            edges = send_edges(url)
            counts = _fuzz(args, url)
            alive = server.poll() is None and requests.get(f"{url}/info/", timeout=60).ok
        finally:
            server.terminate()
            server.wait(STOP_S)
        after = _tree(folder)
    touched = sorted(
        path
        for path in before.keys() ^ after.keys()
        | {path for path in before.keys() & after.keys() if before[path] != after[path]}
        if not path.startswith(("studies/", "sessions/", "home/.cache/", "server.log"))
    )
    failed = _show("at the edges", edges) + _show("schemathesis", counts)
    print(f"server alive {alive}; files touched outside {touched or 'none'}")
    return 1 if failed or not alive or touched or not counts else 0


def _show(name: str, counts: Counter[str]) -> int:
    """Print the count of each status; return the number of failures."""
    failed = sum(
        count for status, count in counts.items() if not status.startswith(("1", "2", "3", "4"))
    )
    statuses = ", ".join(f"{status} {count}" for status, count in sorted(counts.items()))
    print(f"{name}: {counts.total()} requests, failed {failed} ({statuses})")
    return failed


def _fuzz(args: argparse.Namespace, url: str) -> Counter[str]:
    """Run schemathesis in a folder of its own; return the count of each status."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder, "report.ndjson")
        subprocess.run(_command(args, url, report), cwd=folder)
        with open(report, encoding="utf-8") as lines:
            return Counter(status for line in lines for status in _statuses(json.loads(line)))


def _command(args: argparse.Namespace, url: str, report: Path) -> list[str]:
    return [
        *(
            str(args.schemathesis.absolute()),
            "run",
            f"{url}/openapi.json",
            "--checks",
            "not_a_server_error",
        ),
        *("--exclude-path-regex", LEFT_OUT, "--max-time", str(args.seconds)),
        *(
            "--phases",
            "coverage,fuzzing,stateful",
            "--seed",
            str(args.seed),
            "--continue-on-failure",
        ),
        *("--request-timeout", "30", "--suppress-health-check", "all", "--warnings", "off"),
        *("--report", "ndjson", "--report-ndjson-path", str(report), "--no-color"),
    ]


def _statuses(event: object) -> list[str]:
    """Find the status of every response in an event of the report."""
    if isinstance(event, dict):
        found = [str(event["status_code"])] if isinstance(event.get("status_code"), int) else []
        return found + [status for each in event.values() for status in _statuses(each)]
    if isinstance(event, list):
        return [status for each in event for status in _statuses(each)]
    return []


def start_server(
    folder: Path, app: Path = ROOT / "monailabel_app", checkpoint: str = "radfound-tiny"
) -> tuple[subprocess.Popen[bytes], str]:
    """Start a server with all files in one folder, except for the weights in the user's cache."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        *(sys.executable, "-m", "monailabel.main", "start_server"),
        *("--app", str(app), "--studies", str(folder / "studies")),
        *("--host", "127.0.0.1", "--port", str(port), "--conf", "checkpoint", checkpoint),
    ]
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "HOME": str(folder / "home"),
        "TMPDIR": str(folder / "tmp"),
        "MONAI_LABEL_SESSION_PATH": str(folder / "sessions"),
    }
    with open(folder / "server.log", "wb") as log:
        server = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, env=environment, cwd=folder / "home"
        )
    url, deadline = f"http://127.0.0.1:{port}", time.monotonic() + START_S
    while time.monotonic() < deadline and server.poll() is None:
        try:
            if requests.get(f"{url}/info/", timeout=5).ok:
                return server, url
        except requests.RequestException:
            time.sleep(0.3)
    raise SystemExit((folder / "server.log").read_text()[-3000:])


def _tree(folder: Path) -> dict[str, tuple[int, int]]:
    """Return size and modification time of every file below a folder, by relative path."""
    return {
        str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


if __name__ == "__main__":
    sys.exit(main())
