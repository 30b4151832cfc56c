"""The backends that the contract suite runs against: one entry each in `BACKENDS`."""

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from radfound.engine.protocol import Backend
from radfound.records.adapter_weights import WEIGHTS_FILE
from tests.radfound.engine.openai import engines
from tests.radfound.engine.openai import llama_cpp as server

from ..tiny_models import FAMILIES, build, build_adapter


@dataclass(frozen=True)
class Entry:
    """How to make a backend for the suite.

    Parameters
    ----------
    load : callable
        From an empty folder to the backend; called once.
    adapter : callable or None
        From the folder given to `load` and an empty folder to an adapter that fits; None if the backend takes none.
    """

    load: Callable[[Path], Backend]
    adapter: Callable[[Path, Path], Path] | None = None


def transformers(family: str) -> Entry:
    def load(folder: Path) -> Backend:
        from radfound.engine.transformers.backend import TransformersBackend

        return TransformersBackend.load(
            build(family, folder / family), device="cpu", dtype="float32"
        )

    return Entry(load, lambda home, folder: build_adapter(home / family, folder))


def served(running: AbstractContextManager[str], model: str = "") -> Backend:
    """Return the backend of a server that ends with it."""
    from radfound.engine.openai.address import parse_address
    from radfound.engine.openai.backend import OpenAIBackend

    stack = ExitStack()
    url = stack.enter_context(running)
    backend = OpenAIBackend(parse_address(f"{url}#{model}" if model else url), name="served")
    stack.callback(backend.close)
    backend.close = stack.close
    return backend


def llama_cpp() -> Entry:
    """llama.cpp's own server, which is given its adapter at the start."""

    def load(folder: Path) -> Backend:
        eyes = server.write_eyes(folder / "eyes.gguf")
        adapter = server.write_adapter(folder / "a-0001.gguf")
        # One slot: answers of a batch differ in the last digits from those given alone.
        return served(server.running("--mmproj", str(eyes), "--lora", str(adapter), "--slots", "1"))

    def adapter(home: Path, folder: Path) -> Path:
        folder.mkdir()
        (folder / WEIGHTS_FILE).write_bytes(bytes(200))  # the server has the weights
        return folder

    return Entry(load, adapter)


def vllm() -> Entry:
    def load(folder: Path) -> Backend:
        model = build("qwen2_vl", folder / "model", head=64)
        return served(engines.running_vllm(model, folder))

    return Entry(load, lambda home, folder: build_adapter(home / "model", folder))


def transformers_serve() -> Entry:
    def load(folder: Path) -> Backend:
        model = build("llava", folder / "model")
        return served(engines.running_transformers(model, folder), str(model))

    return Entry(load)


BACKENDS = {f"transformers-{family}": transformers(family) for family in FAMILIES}
BACKENDS["llama.cpp"] = llama_cpp()
if engines.PYTHON:
    BACKENDS["vllm"] = vllm()
    BACKENDS["transformers-serve"] = transformers_serve()


@dataclass(frozen=True)
class Running:
    backend: Backend
    entry: Entry
    home: Path


# The quick tests run one family and the server of llama.cpp.
QUICK = ("transformers-llava", "llama.cpp")
ENTRIES = [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in BACKENDS]


@pytest.fixture(scope="module", params=ENTRIES)
def running(request, tmp_path_factory):
    entry, home = BACKENDS[request.param], tmp_path_factory.mktemp(request.param)
    backend = entry.load(home)
    yield Running(backend, entry, home)
    backend.close()


@pytest.fixture
def backend(running):
    return running.backend


@pytest.fixture
def adapter(running, tmp_path):
    """An adapter that fits, or None if the backend takes none."""
    make = running.entry.adapter
    return None if make is None else make(running.home, tmp_path / "adapter")
