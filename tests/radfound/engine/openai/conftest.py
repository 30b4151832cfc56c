import numpy as np
import pytest

from radfound.engine.openai.address import parse_address
from radfound.engine.openai.backend import OpenAIBackend
from radfound.engine.openai.limits import Limits
from radfound.study.study import Study, StudyImage
from tests.radfound.engine.openai import llama_cpp
from tests.radfound.engine.openai.scripted import Scripted, serving


def picture(seed=0, side=64):
    grey = np.random.default_rng(seed).normal(size=(1, side, side)).astype(np.float32)
    return Study([StudyImage(grey, np.eye(4), calibrated=False)])


def volume(slices=24, seed=0):
    hu = np.random.default_rng(seed).normal(0, 300, (slices, 64, 64)).astype(np.float32)
    affine = np.diag([-1.0, -1.0, 2.0, 1.0])
    return Study([StudyImage(hu, affine, modality="CT", hounsfield=True)])


def connect(url, recipe=None, model=None, **options):
    limits = options.pop("limits", {})
    address = parse_address(f"{url}#{model}" if model else url)
    return OpenAIBackend(address, recipe, limits=Limits(**limits), **options)


def text_of(stream):
    return "".join(token.text for token in stream)


@pytest.fixture
def scripted():
    with serving(Scripted()) as server:
        yield server


@pytest.fixture
def backend(scripted):
    made = connect(scripted.url, limits={"answer_s": 5, "silence_s": 2, "connect_s": 1})
    yield made
    made.close()


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gguf")
    return {
        "eyes": str(llama_cpp.write_eyes(folder / "eyes.gguf")),
        "adapter": str(llama_cpp.write_adapter(folder / "a-0001.gguf")),
        "idle": str(llama_cpp.write_adapter(folder / "a-0002.gguf", scale=0.0)),
    }


@pytest.fixture(scope="session")
def llama_url(files):
    """llama.cpp with pictures and two adapters, four answers at once."""
    options = ("--mmproj", files["eyes"], "--lora", files["adapter"], "--lora", files["idle"])
    with llama_cpp.running(*options) as url:
        yield url


@pytest.fixture(scope="session")
def llama(llama_url):
    made = connect(llama_url, name="smol")
    yield made
    made.close()
