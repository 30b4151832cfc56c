"""Models are loaded when asked, and closed when memory is short."""

import threading

import pytest

from radfound.engine.models.registry import Registry
from radfound.engine.models.settings import parse_models
from radfound.exceptions import Busy, CheckpointError, ModelServerError, ModelSettingsError


class Model:
    def __init__(self, name):
        self.name, self.is_closed = name, False

    def close(self):
        self.is_closed = True


def registry(memory_gb=10, build=None, **sizes):
    models = [
        {"name": name, "backend": "transformers", "place": f"/{name}", "memory_gb": size}
        for name, size in sizes.items()
    ]
    settings = parse_models({"models": models, "default": "a", "memory_gb": memory_gb})
    return Registry(settings, build or (lambda model: Model(model.name)))


def test_a_model_is_built_at_its_first_use_and_kept():
    models = registry(a=1, b=1)
    assert models.loaded() == {}
    with models.use() as first:
        assert first.name == "a"
    with models.use("a") as again:
        assert again is first
    assert list(models.loaded()) == ["a"]
    with pytest.raises(ModelSettingsError, match="found 'c'"), models.use("c"):
        pass


def test_the_model_least_used_leaves():
    models = registry(memory_gb=10, a=5, b=5, c=4)
    with models.use("a") as a, models.use("b") as b:
        pass
    with models.use("a"):
        pass
    with models.use("c"):
        assert b.is_closed
        assert not a.is_closed
    assert list(models.loaded()) == ["a", "c"]


def test_a_model_that_answers_is_not_closed():
    models = registry(memory_gb=10, a=6, b=6)
    with models.use("a") as a:
        with pytest.raises(Busy, match="ask again in a moment"), models.use("b"):
            pass
        assert not a.is_closed
    with models.use("b"):
        assert a.is_closed


def test_a_model_larger_than_the_bound_is_refused():
    models = registry(memory_gb=10, a=11)
    with (
        pytest.raises(CheckpointError, match="needs 11.0 GB; .* may take 10.0 GB"),
        models.use("a"),
    ):
        pass


def test_a_model_that_fails_to_load_is_tried_again_and_takes_no_memory():
    tried = []

    def build(model):
        tried.append(model.name)
        if len(tried) == 1:
            raise CheckpointError("no")
        return Model(model.name)

    models = registry(memory_gb=10, a=6, b=6, build=build)
    with pytest.raises(CheckpointError), models.use("a"):
        pass
    with models.use("b"):
        pass
    with models.use("a"):
        pass
    assert tried == ["a", "b", "a"]


def test_two_first_questions_build_one_model_and_others_answer_meanwhile():
    may_build, built = threading.Event(), []

    def build(model):
        if model.name == "a":
            assert may_build.wait(5)
        built.append(model.name)
        return Model(model.name)

    models = registry(a=1, b=1, build=build)
    found = []

    def ask():
        with models.use("a") as model:
            found.append(model)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    with models.use("b") as other:
        assert other.name == "b"
    may_build.set()
    for thread in threads:
        thread.join()
    assert built == ["b", "a"]
    assert len({id(model) for model in found}) == 1


def test_closing_closes_all_and_refuses_new_questions():
    models = registry(a=1, b=1)
    with models.use("a") as a, models.use("b") as b:
        models.close()
    assert a.is_closed
    assert b.is_closed
    with pytest.raises(ModelServerError, match="stopping"), models.use("a"):
        pass
