import pytest

from radfound.engine.transformers.backend import TransformersBackend

from ..tiny_models import FAMILIES, build


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """From a family to the folder of its tiny model, built once."""
    root, built = tmp_path_factory.mktemp("tiny"), {}

    def folder(family):
        if family not in built:
            built[family] = build(family, root / family)
        return built[family]

    return folder


@pytest.fixture(scope="session")
def backends(folders):
    """From a family to its backend in float32 on the CPU."""
    loaded = {}

    def backend(family):
        if family not in loaded:
            loaded[family] = TransformersBackend.load(
                folders(family), device="cpu", dtype="float32"
            )
        return loaded[family]

    yield backend
    for each in loaded.values():
        each.close()


@pytest.fixture(params=FAMILIES)
def backend(request, backends):
    """A backend of each family."""
    return backends(request.param)
