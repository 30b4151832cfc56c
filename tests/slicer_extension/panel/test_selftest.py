import importlib.util
import unittest

import pytest
import slicer

from ..standin.application import MODULE_FOLDER
from .desk import Desk


def run_self_test():
    slicer.selfTests["RadFound"]()


def test_the_self_test_passes(module):
    run_self_test()


def test_the_self_test_leaves_the_users_settings_as_they_were(module):
    from RadFoundLib.session.settings import Settings

    settings = Settings()
    settings.set_author("A. Reader")
    settings.set_addresses(["https://radfound.example.org"])
    settings.set_consents({"https://radfound.example.org"})
    module.ui.authorEdit.text = "A. Reader"

    run_self_test()

    assert Settings().author() == module.ui.authorEdit.text == "A. Reader"
    assert Settings().addresses() == ["https://radfound.example.org"]
    assert Settings().consents() == {"https://radfound.example.org"}
    assert module.panel.session.state == "away"
    assert not module.panel.session.outbox.waiting()


def test_the_self_test_fails_when_an_answer_does_not_come(module, monkeypatch):
    from RadFoundLib.selftest import pretended_server as stub
    from RadFoundLib.selftest import selftest

    monkeypatch.setattr(selftest, "_PATIENCE_S", 0.5)
    monkeypatch.setattr(stub._Handler, "_stream", lambda self, body: None)

    with pytest.raises(AssertionError, match="an answer"):
        run_self_test()


def test_the_module_has_what_slicer_asks_of_one(module):
    import SampleData

    [source] = SampleData.sources
    assert source.category == "RadFound" and source.sampleName == "RadFoundPhantom"
    [volume] = source.customDownloader(source)
    assert volume.GetName() == "RadFoundPhantom"
    assert volume.GetImageData().GetDimensions() == (160, 128, 48)
    assert Desk(module, None).panel.volume is volume


def test_reloading_reads_the_package_anew(module):
    import sys

    assert "RadFoundLib.panel.panel" in sys.modules
    module.onReload()

    assert "RadFoundLib.panel.panel" not in sys.modules
    assert module.reloads == 1


def test_what_runs_inside_slicer_as_a_unit_test_passes(running):
    path = MODULE_FOLDER / "Testing" / "Python" / "RadFoundSceneTest.py"
    spec = importlib.util.spec_from_file_location("RadFoundSceneTest", path)
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)

    result = unittest.TestResult()
    unittest.defaultTestLoader.loadTestsFromTestCase(loaded.RadFoundSceneTest).run(result)

    assert result.testsRun == 2
    assert not result.errors and not result.failures


def test_texts_are_translated_with_the_context_that_slicer_gives_them(module, running):
    assert ("panel.section_ask", "Quick questions") in running.app.translated
    assert ("panel.section_server", "Connect") in running.app.translated
