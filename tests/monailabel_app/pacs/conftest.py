import re
from contextlib import contextmanager

import pytest

from ..conftest import running_server
from . import synthetic
from .orthanc import Orthanc, missing_tools

# No log may hold these: identifiers and names of patients, and what was asked.
PRIVATE = re.compile(
    r"PID-77|ACC-558|Zwetschgen|Quendoline|Mirabellen|Quitten|ANON-1|Ist das ein Pneu|zitronengelb"
)


@pytest.fixture(scope="session")
def tools():
    """Fail, and do not skip, where the archive and the validators are not installed."""
    missing = missing_tools()
    assert not missing, (
        f"not installed: {', '.join(missing)}; `make test-pacs` installs them as root"
    )


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """The files of all synthetic studies: a folder of studies, and what is no study beside them."""
    folder = tmp_path_factory.mktemp("files")
    synthetic.write_all(folder)
    return folder


@pytest.fixture(scope="session")
def archive(tools, files, tmp_path_factory):
    with Orthanc(tmp_path_factory.mktemp("archive") / "orthanc") as archive:
        archive.upload(files)
        yield archive


@pytest.fixture
def empty_archive(tools, tmp_path):
    with Orthanc(tmp_path / "orthanc") as archive:
        yield archive


@contextmanager
def serving(archive, folder, *conf, url="", variables=(), **options):
    """A server whose studies are in an archive; no log of it holds a name, a question or an answer."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = [word for name, value in conf for word in ("--conf", name, str(value))]
    with running_server(
        url or archive.dicomweb,
        folder / "server.log",
        *("--conf", "state", str(folder / "state")),
        *settings,
        variables={**archive.variables, **dict(variables)},
        **options,
    ) as server:
        server.state = folder / "state"
        yield server
    assert_no_secrets(server)


def assert_no_secrets(server):
    logs = [server.log, *(server.state / ".radfound" / "logs").glob("*")]
    for log in logs:
        found = PRIVATE.search(log.read_text(errors="replace"))
        assert found is None, f"{log.name} holds {found[0]!r}"


@pytest.fixture(scope="session")
def pacs(archive, tmp_path_factory):
    """A server that may send drafts, shared by tests that leave the archive's studies as they are."""
    with serving(archive, tmp_path_factory.mktemp("pacs"), ("pacs_write", "draft")) as server:
        yield server
