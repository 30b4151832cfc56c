"""The measurement of worked examples, with a model behind a scripted server."""

import re

import numpy as np
import pytest

from radfound.correction import Correction
from radfound.engine.engine import Engine
from radfound.exceptions import RequestError
from radfound.study.study import Study, StudyImage
from tests.radfound.engine.openai.conftest import connect
from tests.radfound.engine.openai.scripted import Scripted, chunk, event, serving
from training.teaching.examples import kept_features, main, measure

QUESTION = "Is this a PA or an AP film?"
COUNT = 24


def film(number):
    pixels = np.full((1, 8, 8), number, np.uint8)
    return Study((StudyImage(pixels, np.eye(4), calibrated=False),))


def right(number):
    return "PA" if number % 2 else "AP"


ROWS = [
    Correction(
        images=(f"film{number}",), task="vqa", question=QUESTION, model_text="unclear", verdict="edited",
        text=right(number), author="Dr A", image_hash=film(number).digest, id=f"c{number:02d}",
    )
    for number in range(COUNT)
]  # fmt: skip
VECTORS = {film(n).digest: np.array([1.0, n % 2]) for n in range(COUNT)}


def read(images):
    return film(int(images[0].removeprefix("film")))


@pytest.fixture
def scripted():
    with serving(Scripted()) as server:
        yield server


@pytest.fixture
def engine(scripted):
    made = Engine(connect(scripted.url, limits={"answer_s": 5, "silence_s": 2, "connect_s": 1}))
    yield made
    made.close()


def says(scripted, choose):
    """Answer with what `choose` makes of the answers of the examples."""

    async def script(body):
        async def words():
            yield event(chunk(choose(re.findall(r"ANSWER: (\w+)", str(body["messages"])))))
            yield event(chunk(finish="stop"))
            yield event("[DONE]")

        return scripted.streamed(words())

    scripted.script = script


def test_a_model_that_follows_its_examples_wins_with_them(engine, scripted):
    says(scripted, lambda examples: examples[0] if examples else "AP")
    gain = measure(engine, ROWS, read, VECTORS.get)
    assert (gain.corrections, gain.patients, gain.without, gain.shown) == (COUNT, COUNT, 0.5, 1.0)
    assert gain.wins
    assert gain.revision == engine.model_version.revision


def test_a_model_that_ignores_its_examples_does_not_win(engine, scripted):
    says(scripted, lambda examples: "AP")
    gain = measure(engine, ROWS, read, VECTORS.get)
    assert not gain.wins
    assert "they are not shown" in gain.told()


def test_no_example_is_of_the_same_patient(engine, scripted):
    says(scripted, lambda examples: examples[0] if examples else "AP")
    with pytest.raises(RequestError, match="found 0 corrections"):
        measure(engine, ROWS, read, VECTORS.get, patient=lambda row: "one")


def test_features_that_a_server_kept_are_found(tmp_path):
    np.savez(tmp_path / "d1.npz", vector=np.ones(4, np.float16), fields="{}")
    features = kept_features(tmp_path)
    assert features("d1").tolist() == [1, 1, 1, 1]
    assert features("d2") is None


def test_a_folder_that_is_missing_is_named(tmp_path):
    with pytest.raises(RequestError, match="there is no folder"):
        main(["--studies", str(tmp_path / "none")])
