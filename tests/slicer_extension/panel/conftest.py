import pytest


@pytest.fixture
def running(tmp_path):
    """A Slicer that stands in; a test fails for what went wrong in a slot."""
    from ..standin import pythonqt
    from ..standin.application import running_slicer

    pythonqt.errors.clear()
    with running_slicer(tmp_path / "slicer") as running:
        yield running
    assert not pythonqt.errors, "\n".join(pythonqt.errors)


@pytest.fixture
def server(running):
    from RadFoundLib.selftest.pretended_server import StubServer

    server = StubServer()
    yield server
    server.close()


@pytest.fixture
def module(running):
    """The module's widget, opened in a window."""
    return running.open_module()


@pytest.fixture
def desk(module, server):
    """A panel that is connected to the server that pretends, with a volume, and may send it."""
    from .desk import Desk, add_volume

    desk = Desk(module, server)
    desk.volume = add_volume()
    desk.connect()
    desk.ui.consentBox.checked = True
    desk.ui.authorEdit.text = "A. Reader"
    desk.ui.evidenceSection.collapsed = desk.ui.teachSection.collapsed = False
    return desk
