import importlib
import subprocess
import sys

import pytest

import radfound


def test_the_public_face_is_what_the_documents_name():
    assert set(radfound.__all__) == {
        "Answer", "Box", "Correction", "Engine", "Plane", "RadFoundError", "Study", "Turn",
        "__version__", "read_study",
    }  # fmt: skip
    assert set(radfound.__all__) <= set(dir(radfound))


@pytest.mark.parametrize("name", sorted(set(radfound.__all__) - {"__version__"}))
def test_a_name_is_the_one_of_its_home(name):
    found = getattr(radfound, name)
    assert found is getattr(importlib.import_module(found.__module__), name)


def test_another_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="nothing_of_the_kind"):
        radfound.nothing_of_the_kind  # noqa: B018


def test_importing_it_imports_none_of_them():
    heavy = "{'torch', 'numpy', 'pydantic', 'transformers'} & set(sys.modules)"
    script = f"import sys, radfound; assert not {heavy}, {heavy}"
    subprocess.run([sys.executable, "-c", script], check=True)


def test_scripts_that_name_the_former_addresses_go_on():
    from monailabel_app.lib.datastore import StudyDatastore
    from monailabel_app.lib.studies import datastore
    from radfound.engine import Engine
    from radfound.frames import make_frames
    from radfound.study import frames

    assert (make_frames, Engine) == (frames.make_frames, radfound.Engine)
    assert StudyDatastore is datastore.StudyDatastore
