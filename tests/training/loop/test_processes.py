import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from .small_run import NextToken, run

ROOT = Path(__file__).parents[3]
SCRIPT = Path(__file__).with_name("small_run.py")
PARALLEL = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
SHARDED = [
    "-m", "accelerate.commands.launch", "--config_file",
    str(ROOT / "training/stages/configs/fsdp.yaml"), "--num_processes", "2", "--mixed_precision", "no",
]  # fmt: skip


def start(folder, launcher=(), **settings):
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("ACCELERATE")
    } | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, *launcher, str(SCRIPT), str(folder), json.dumps(settings)]
    return subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def finish(process):
    output = process.communicate(timeout=300)[0]
    assert process.returncode == 0, output[-3000:]


def curve(folder):
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.fixture
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_a_run_killed_at_a_random_moment_and_resumed_has_the_same_curve(tmp_path, one_thread):
    whole = NextToken()
    expected = run(None, whole)
    chance = random.Random()
    wanted = chance.randrange(5, 35)
    process = start(tmp_path, pause_s=0.02)
    log = tmp_path / "log.jsonl"
    while not log.is_file() or log.read_bytes().count(b"\n") < wanted:
        assert process.poll() is None, process.communicate()[0][-3000:]
        time.sleep(0.005)
    time.sleep(chance.random() * 0.03)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "trained.pt").exists(), "killed too late to test anything"
    finish(start(tmp_path))
    assert curve(tmp_path) == expected, f"killed after step {wanted}"
    trained = torch.load(tmp_path / "trained.pt")
    for name, value in whole.state_dict().items():
        assert torch.equal(value, trained[name]), name


def test_two_processes_with_two_micro_batches_learn_what_one_process_learns_at_once(tmp_path):
    whole = NextToken(dropout=0.0)
    expected = run(None, whole, precision="fp32")
    finish(start(tmp_path, PARALLEL, dropout=0.0, precision="fp32", accumulate=2))
    same(curve(tmp_path), expected)
    same_outputs(tmp_path, whole)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_sharded_weights_learn_the_same_and_resume_from_their_shards(tmp_path, precision):
    whole = NextToken(dropout=0.0)
    expected = run(None, whole, precision=precision)
    some = {"dropout": 0.0, "precision": precision, "sharded": True}
    killed = start(tmp_path, SHARDED, stop_after=22, **some)
    killed.communicate(timeout=300)
    assert killed.returncode != 0 and curve(tmp_path)[-1]["step"] == 22
    finish(start(tmp_path, SHARDED, **some))
    same(curve(tmp_path), expected, 2e-3 if precision == "fp32" else 0.05)
    assert [path.name for path in tmp_path.glob("shards-*")] == ["shards-00000040"]
    if precision == "fp32":
        same_outputs(tmp_path, whole)


def same(found, expected, rel=2e-3):
    """The losses are; what an objective logs of its own comes from the parts of the batch."""
    assert [record["step"] for record in found] == [record["step"] for record in expected]
    for name in ("loss", "val_loss"):
        some, others = ([r[name] for r in each if name in r] for each in (found, expected))
        assert some == pytest.approx(others, rel=rel)


def same_outputs(folder, whole):
    """The models say the same; their weights may differ where that makes no difference."""
    other = NextToken(dropout=0.0)
    other.load_state_dict(torch.load(folder / "trained.pt"))
    assert torch.allclose(other.logits(other.sequences), whole.logits(whole.sequences), atol=0.02)
