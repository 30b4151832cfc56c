"""A token goes to the server that asked for it, and nowhere else."""

import socket

import pytest
import slicer.util

from ..stub import Stub, says, whole
from .desk import Desk, is_shown

SECRET = "a-secret-token"


@pytest.fixture
def other(running):
    """Another server, which notes what it is sent and refuses everything."""
    with Stub(says(whole({"detail": "no"}, 401))) as stub:
        yield stub


@pytest.fixture
def asked(monkeypatch):
    """The questions that the panel asks, each answered by `asked.answer`."""

    class Asked(list):
        answer = False

    asked = Asked()

    def ask(text, *_title):
        asked.append(text)
        return asked.answer

    monkeypatch.setattr(slicer.util, "confirmYesNoDisplay", ask)
    return asked


@pytest.fixture
def far(server, monkeypatch):
    """The address of the panel's server as another machine's."""
    look_up = socket.getaddrinfo

    def getaddrinfo(host, *rest, **how):
        return look_up("127.0.0.1" if host == "ward.example" else host, *rest, **how)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return f"http://ward.example:{server.port}"


def connect(desk, address, state):
    if desk.session.state == "connected":
        desk.ui.connectButton.click()
    desk.ui.addressBox.setEditText(address)
    desk.ui.connectButton.click()
    desk.until(lambda: desk.session.state == state)
    desk.settle()


def enter(desk, address, token=SECRET, state="connected"):
    """Connect, be asked for a token, and give one."""
    connect(desk, address, "refused")
    desk.ui.tokenEdit.text = token
    desk.ui.connectButton.click()
    desk.until(lambda: desk.session.state != "connecting")
    desk.settle()
    assert desk.session.state == state


def tokens_sent(stub):
    return [request.headers.get("authorization") for request in stub.requests]


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
def test_the_next_server_does_not_get_the_token_of_the_last_one(module, server, other, name):
    server.token = SECRET
    desk = Desk(module, server)
    enter(desk, server.address)

    connect(desk, f"{name}:{other.address.rpartition(':')[2]}", "refused")

    assert set(tokens_sent(other)) == {None}
    assert desk.ui.tokenEdit.text == "" and is_shown(desk.ui.tokenEdit)


def test_a_token_that_was_typed_in_and_not_sent_stays_where_it_was_asked_for(module, server, other):
    server.token = SECRET
    desk = Desk(module, server)
    connect(desk, server.address, "refused")
    desk.ui.tokenEdit.text = SECRET

    connect(desk, other.address, "refused")
    connect(desk, server.address, "refused")

    assert set(tokens_sent(other)) == {None}


def test_a_token_is_asked_for_once_for_each_server(module, server, other):
    server.token = SECRET
    desk = Desk(module, server)
    enter(desk, server.address)
    connect(desk, other.address, "refused")

    connect(desk, server.address, "connected")

    assert not is_shown(desk.ui.tokenEdit)


def test_a_token_that_was_refused_is_forgotten(module, server):
    server.token = SECRET
    desk = Desk(module, server)

    enter(desk, server.address, "another-token", state="refused")

    assert desk.session.tokens == {}


def test_the_same_host_by_another_scheme_is_another_server(module, server):
    server.token = SECRET
    desk = Desk(module, server)
    enter(desk, server.address)

    connect(desk, server.address.replace("http://", "https://"), "lost")

    assert desk.session.client._token == ""


def test_a_token_crosses_the_network_in_plain_text_only_after_a_question(
    module, server, far, asked
):
    server.token = SECRET
    desk = Desk(module, server)
    connect(desk, far, "refused")
    desk.ui.tokenEdit.text = SECRET

    desk.ui.connectButton.click()
    desk.run(0.1)

    assert desk.session.state == "refused" and desk.session.tokens == {}
    assert desk.ui.stateLabel.text == "Not connected: nothing was sent."
    assert "not encrypted" in asked[0] and far in asked[0] and SECRET not in asked[0]

    asked.answer = True
    connect(desk, far, "connected")
    connect(desk, far, "connected")

    assert len(asked) == 2  # asked again after a no, and not after a yes


def test_no_question_is_asked_about_this_computer(module, server, asked):
    server.token = SECRET

    enter(Desk(module, server), server.address)

    assert asked == []
