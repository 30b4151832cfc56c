import json
import os
import stat
import sys
import threading

import pytest
from RadFoundLib.net.cancellation import Cancellation
from RadFoundLib.net.client import Client, ClientError
from RadFoundLib.session.outbox import Outbox, new_correction

from ..stub import ANSWER, Stub, resets, whole


@pytest.fixture
def outbox(tmp_path):
    return Outbox(str(tmp_path / "unsent"))


class Log:
    """A server that records corrections, each id once; `fails` may reply instead."""

    def __init__(self, fails=None):
        self.rows = {}
        self.fails = fails or (lambda row: None)

    def behave(self, request, line):
        row = json.loads(request.body)
        reply = self.fails(row)
        if reply is None:
            is_new = row["id"] not in self.rows
            self.rows[row["id"]] = row
            reply = whole({"id": row["id"], "recorded": is_new})
        line.sendall(reply)


def corrections(count):
    return [new_correction(ANSWER, "edited", "a reader", f"text {n}") for n in range(count)]


def refused(status, code="bad_correction", message="images: one is not in the datastore"):
    return whole({"detail": {"code": code, "message": message}}, status)


# Corrections


def test_a_correction_says_what_was_answered_and_what_is_right():
    row = new_correction(ANSWER, "edited", " A. Reader ", "A phantom.")
    assert (row["model_text"], row["text"], row["author"]) == ("A stub.", "A phantom.", "A. Reader")
    assert (row["answer_id"], row["images"]) == (ANSWER["id"], ANSWER["images"])
    assert (row["question"], row["model"]) == (ANSWER["question"], ANSWER["model"])


def test_every_correction_has_an_id_of_its_own():
    assert len({row["id"] for row in corrections(3)}) == 3


def test_a_correction_of_a_report_has_no_question():
    answer = {**ANSWER, "task": "report", "question": "Write a report."}
    assert new_correction(answer, "accepted", "a reader")["question"] is None


def test_a_correction_may_say_where():
    region = {"box_mm": [[0, 0, 0], [1, 2, 3]]}
    assert new_correction(ANSWER, "rejected", "a reader", region=region)["region"] == region
    assert "region" not in new_correction(ANSWER, "rejected", "a reader")


@pytest.mark.parametrize(
    ("answer", "verdict", "author", "text"),
    [
        (ANSWER, "edited", "  ", "text"),
        (ANSWER, "edited", "a reader", " "),
        ({**ANSWER, "text": ""}, "accepted", "a reader", ""),
    ],
)
def test_a_correction_that_lacks_something_is_refused_in_words(answer, verdict, author, text):
    with pytest.raises(ClientError) as caught:
        new_correction(answer, verdict, author, text)
    assert caught.value.kind == "request"


# Keeping


def test_what_is_added_is_there_for_the_next_slicer(outbox):
    rows = corrections(3)
    for row in rows:
        outbox.add(row, "http://127.0.0.1:8000")
    waiting = Outbox(outbox.folder).waiting()
    assert [each.correction for each in waiting] == rows
    assert {each.server for each in waiting} == {"http://127.0.0.1:8000"}


def test_nothing_waits_where_nothing_was_added(outbox):
    assert outbox.waiting() == []
    assert not os.path.exists(outbox.folder)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such permissions")
def test_others_on_the_machine_cannot_read_it(outbox):
    added = outbox.add(corrections(1)[0], "http://127.0.0.1:8000")
    file = os.path.join(outbox.folder, added.id + ".json")
    assert stat.S_IMODE(os.stat(outbox.folder).st_mode) == 0o700
    assert stat.S_IMODE(os.stat(file).st_mode) == 0o600


def test_a_damaged_file_hides_no_other_and_is_not_deleted(outbox):
    added = outbox.add(corrections(1)[0], "http://127.0.0.1:8000")
    for name, content in [("half.json", '{"schema"'), ("list.json", "[]"), ("x.json", "\xff")]:
        with open(os.path.join(outbox.folder, name), "w", encoding="latin-1") as file:
            file.write(content)
    assert [each.id for each in outbox.waiting()] == [added.id]
    with Stub(Log().behave) as stub:
        outbox.flush(Client(stub.address))
    assert {"half.json", "list.json", "x.json"} <= set(os.listdir(outbox.folder))


def test_a_disk_that_takes_nothing_is_said(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ClientError) as caught:
        Outbox(str(tmp_path / "file")).add(corrections(1)[0], "http://127.0.0.1:8000")
    assert caught.value.kind == "request"
    assert "not saved" in caught.value.message


def test_an_id_cannot_lead_out_of_the_folder(outbox):
    with pytest.raises(ValueError, match="id"):
        outbox.add({**corrections(1)[0], "id": "../elsewhere"}, "http://127.0.0.1:8000")


# Sending


def test_what_was_acknowledged_is_gone_from_the_disk(outbox):
    log = Log()
    rows = corrections(3)
    with Stub(log.behave) as stub:
        client = Client(stub.address)
        for row in rows:
            outbox.add(row, client.address)
        flushed = outbox.flush(client)
    assert list(log.rows.values()) == rows
    assert flushed.sent == tuple(row["id"] for row in rows)
    assert (flushed.kept, flushed.refused, flushed.error) == (0, (), None)
    assert os.listdir(outbox.folder) == []


def test_corrections_go_only_to_the_server_they_are_for(outbox):
    log = Log()
    outbox.add(corrections(1)[0], "http://127.0.0.1:1")
    with Stub(log.behave) as stub:
        assert outbox.flush(Client(stub.address)).sent == ()
    assert log.rows == {}
    assert len(outbox.waiting("http://127.0.0.1:1")) == 1


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (whole(b"", 500), "server"),
        (whole(b"", 401), "refused"),
        (whole(b"<html>"), "protocol"),
        (whole(b"", 307, Location="http://elsewhere/"), "protocol"),
        (b"", "unreachable"),
    ],
)
def test_nothing_is_lost_while_a_server_fails(outbox, reply, kind):
    log = Log(fails=lambda row: reply)
    with Stub(log.behave) as stub:
        client = Client(stub.address)
        for row in corrections(2):
            outbox.add(row, client.address)
        flushed = outbox.flush(client)
        assert (flushed.kept, flushed.error.kind) == (2, kind)
        assert len(stub.requests) == 1
        log.fails = lambda row: None
        assert len(outbox.flush(client).sent) == 2
    assert len(log.rows) == 2


def test_nothing_is_lost_while_no_server_is_there(outbox):
    with Stub(resets) as stub:
        client = Client(stub.address)
    outbox.add(corrections(1)[0], client.address)
    flushed = outbox.flush(client)
    assert (flushed.kept, flushed.error.kind) == (1, "unreachable")
    assert len(outbox.waiting()) == 1


def test_a_lost_receipt_doubles_nothing(outbox):
    log = Log()
    is_lost = threading.Event()

    def records_and_dies(request, line):
        row = json.loads(request.body)
        if is_lost.is_set():
            log.behave(request, line)
        else:
            log.rows[row["id"]] = row
            is_lost.set()
            resets(request, line)

    with Stub(records_and_dies) as stub:
        client = Client(stub.address)
        row = corrections(1)[0]
        outbox.add(row, client.address)
        assert outbox.flush(client).kept == 1
        assert outbox.flush(client).sent == (row["id"],)
    assert list(log.rows.values()) == [row]
    assert outbox.waiting() == []


def test_one_that_is_refused_stays_and_does_not_stand_in_the_way(outbox):
    first, second = corrections(2)
    log = Log(fails=lambda row: refused(400) if row["id"] == first["id"] else None)
    with Stub(log.behave) as stub:
        client = Client(stub.address)
        for row in (first, second):
            outbox.add(row, client.address)
        flushed = outbox.flush(client)
        assert flushed.sent == (second["id"],)
        assert [each.id for each in flushed.refused] == [first["id"]]
        assert "not in the datastore" in outbox.waiting()[0].refusal

        asked = len(stub.requests)
        assert outbox.flush(client).refused[0].id == first["id"]
        assert len(stub.requests) == asked, "it was sent again without being asked to"

        log.fails = lambda row: None
        assert outbox.flush(client, again=True).sent == (first["id"],)
    assert outbox.waiting() == []


def test_sending_can_be_stopped(outbox):
    cancel = Cancellation()
    cancel.set()
    outbox.add(corrections(1)[0], "http://127.0.0.1:1")
    flushed = outbox.flush(Client("127.0.0.1:1"), cancel)
    assert (flushed.kept, flushed.error.kind) == (1, "cancelled")


def test_a_discarded_correction_is_gone(outbox):
    added = outbox.add(corrections(1)[0], "http://127.0.0.1:1")
    outbox.discard(added.id)
    outbox.discard(added.id)
    assert outbox.waiting() == []


def test_a_token_never_reaches_the_disk(outbox, tmp_path):
    with Stub(lambda request, line: line.sendall(whole(b"", 401))) as stub:
        client = Client(stub.address, token="t0ken")
        outbox.add(corrections(1)[0], client.address)
        outbox.flush(client)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    assert not any(b"t0ken" in path.read_bytes() for path in files)
