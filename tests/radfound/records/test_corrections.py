import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path

import pytest

from radfound.exceptions import CorrectionError, NotFoundError, StorageError
from radfound.question import ModelVersion
from radfound.records.corrections import Correction, CorrectionLog, log_path, rows_digest
from radfound.study.region import Plane, PointAndNormal

ROOT = Path(__file__).parents[3]


def correction(**changes) -> Correction:
    fields = {
        "images": ("ct01",),
        "task": "vqa",
        "question": "Is there an effusion?",
        "model_text": "No.",
        "verdict": "edited",
        "text": "Yes, on the left.",
        "author": "reader 1",
    }
    return Correction(**{**fields, **changes})


@pytest.fixture
def log(tmp_path) -> CorrectionLog:
    return CorrectionLog(log_path(tmp_path))


def start(script: str, *arguments: object) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    )


# One correction


def test_correction_makes_its_own_id_and_time():
    first, second = correction(), correction()
    assert first.id != second.id
    moment = datetime.fromisoformat(first.created.replace("Z", "+00:00"))
    assert abs((datetime.now(timezone.utc) - moment).total_seconds()) < 60


def test_accepted_answer_takes_the_models_text():
    assert correction(verdict="accepted", text="").text == "No."


def test_rejected_answer_may_come_without_a_text():
    assert correction(verdict="rejected", text="").text == ""


def test_caption_has_no_question_and_a_blank_one_counts_as_none():
    assert correction(task="caption", question=" ").question is None


def test_time_is_kept_in_utc():
    made = correction(created="2026-08-01T11:30:00+02:00")
    assert made.created == "2026-08-01T09:30:00.000Z"


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("id", {"id": ""}),
        ("id", {"id": "../x"}),
        ("answer_id", {"answer_id": 5}),
        ("images", {"images": ()}),
        ("images", {"images": "ct01"}),
        ("images", {"images": ["ct01", ""]}),
        ("images", {"images": ["ct01", "ct01"]}),
        ("task", {"task": "segment"}),
        ("task", {"task": ["vqa"]}),
        ("question", {"question": None}),
        ("question", {"task": "report", "question": "why?"}),
        ("model_text", {"model_text": None}),
        ("verdict", {"verdict": "maybe"}),
        ("text", {"text": "  \n"}),
        ("text", {"text": "x" * 20_001}),
        ("text", {"text": "half a \ud800 pair"}),
        ("text", {"verdict": "accepted", "text": "Something else."}),
        ("model_text", {"verdict": "accepted", "model_text": "", "text": ""}),
        ("author", {"author": " "}),
        ("created", {"created": "yesterday"}),
        ("created", {"created": "2026-08-01T09:30:00"}),
        ("created", {"created": 20260801}),
        ("model", {"model": "radfound-mini"}),
        ("model.adapter", {"model": ModelVersion("m", "r", 3)}),
        ("image_hash", {"image_hash": ""}),
        ("region", {"region": "left lung"}),
        ("region", {"region": {}}),
        (r"region.box_mm", {"region": {"box_mm": [[0, 0, 0], [1, 0, 1]]}}),
    ],
)
def test_invalid_correction_is_refused_by_the_name_of_its_field(field, changes):
    with pytest.raises(CorrectionError, match=rf"^{field}: "):
        correction(**changes)


def test_refusal_does_not_repeat_what_a_reader_wrote():
    with pytest.raises(CorrectionError) as refusal:
        correction(text="patient Doe " * 2_000)
    assert "Doe" not in str(refusal.value)


def test_region_is_kept_as_a_question_has_it():
    made = correction(region={"slice_mm": {"point": [1, 2, 3], "normal": [0, 3, -4]}})
    assert made.region == Plane(PointAndNormal((1.0, 2.0, 3.0), (0.0, 0.6, -0.8)))


# The log


def test_everything_comes_back_in_order(log):
    made = [
        correction(
            answer_id="answer-1",
            images=("l cc", "r cc"),
            question="Größe — 大小?",
            text="line one\nline two \u0000 end",
            model=ModelVersion("radfound-mini", "0123456789ab", "a-0003"),
            image_hash="ab" * 32,
            region={"box_mm": [[-10, 0, 0.1], [10, 20, 5]]},
        ),
        correction(verdict="accepted", text=""),
        correction(task="report", question=None),
    ]
    assert [log.append(each) for each in made] == [True, True, True]
    assert log.rows() == list(log) == made
    assert log.count() == 3
    assert log.get(made[0].id) == made[0]


def test_reading_a_log_that_does_not_exist_makes_nothing(tmp_path):
    log = CorrectionLog(log_path(tmp_path))
    assert (log.rows(), log.latest(), log.for_image("ct01"), log.count()) == ([], [], [], 0)
    assert log.images() == set()
    assert list(tmp_path.iterdir()) == []


def test_unknown_id_is_not_found(log):
    log.append(correction())
    with pytest.raises(NotFoundError):
        log.get("never-seen")


def test_same_correction_sent_twice_is_recorded_once(log):
    made = correction()
    assert log.append(made)
    assert not log.append(made)
    assert not log.append(replace(made, created="2026-08-01T09:30:00Z", image_hash="cd" * 32))
    assert log.rows() == [made]


def test_same_id_with_other_content_is_refused_and_the_earlier_stays(log):
    made = correction()
    log.append(made)
    with pytest.raises(CorrectionError, match="^id: "):
        log.append(replace(made, text="Both sides."))
    assert log.rows() == [made]


def test_latest_is_the_newest_for_each_images_task_and_question(log):
    old, new = correction(), correction(text="Small one on the left.")
    other_question = correction(question="Is there a mass?")
    caption, newer_caption = (correction(task="caption", question=None) for _ in range(2))
    for each in (old, caption, other_question, new, newer_caption):
        log.append(each)
    assert log.latest() == [other_question, new, newer_caption]


def test_a_question_about_a_region_is_another_than_one_about_the_whole(log):
    whole, left, right = (
        correction(region=region)
        for region in (
            None,
            {"box_mm": [[-9, 0, 0], [0, 9, 9]]},
            {"box_mm": [[0, 0, 0], [9, 9, 9]]},
        )
    )
    newer = replace(right, id="newer", text="On the right.")
    for each in (whole, left, right, newer):
        log.append(each)
    assert log.latest() == [whole, left, newer]


def test_corrections_are_found_by_any_of_their_images(log):
    exam = correction(images=("l cc", "r cc"))
    log.append(exam)
    log.append(correction())
    assert log.for_image("r cc") == [exam]
    assert log.for_image("r") == []
    assert log.images() == {"l cc", "r cc", "ct01"}


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE corrections SET text = 'forged'",
        "DELETE FROM corrections",
        "INSERT OR REPLACE INTO corrections SELECT * FROM corrections",
        "REPLACE INTO corrections (id, images, task, model_text, verdict, text, author, created)"
        " SELECT id, images, task, model_text, verdict, 'forged', author, created"
        " FROM corrections",
    ],
)
def test_the_file_itself_refuses_to_change_a_row(log, statement):
    made = correction()
    log.append(made)
    connection = sqlite3.connect(log.path)
    with pytest.raises(sqlite3.IntegrityError, match="append-only"), connection:
        connection.execute(statement)
    connection.close()
    assert log.rows() == [made]


def test_digest_tells_content_and_nothing_else(log, tmp_path):
    other = CorrectionLog(tmp_path / "other.sqlite")
    made = correction()
    for each in (log, other):
        each.append(made)
    assert rows_digest(log.rows()) == rows_digest(other.rows())
    log.append(correction())
    assert rows_digest(log.rows()) != rows_digest(other.rows())


# A log that an earlier version has begun

FIRST_LAYOUT = """
CREATE TABLE corrections (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, answer_id TEXT,
    images TEXT NOT NULL, task TEXT NOT NULL, question TEXT, model_text TEXT NOT NULL,
    verdict TEXT NOT NULL, text TEXT NOT NULL, author TEXT NOT NULL, created TEXT NOT NULL,
    model_name TEXT, model_revision TEXT, model_adapter TEXT, image_hash TEXT);
CREATE TRIGGER corrections_are_not_changed BEFORE UPDATE ON corrections
    BEGIN SELECT RAISE(ABORT, 'corrections are append-only'); END;
INSERT INTO corrections (id, images, task, question, model_text, verdict, text, author, created)
VALUES ('old-1', '["ct01"]', 'vqa', 'Effusion?', 'No.', 'edited', 'Yes.', 'r',
        '2026-08-01T09:30:00.000Z'),
       ('old-2', '["ct01"]', 'caption', NULL, 'A CT.', 'accepted', 'A CT.', 'r',
        '2026-08-01T09:31:00.000Z');
PRAGMA application_id = 1380338737;
PRAGMA user_version = 1;
"""
FIRST_LAYOUT_DIGEST = "9bd55617e8befc862f77c7873430758e9778c51a405b2929e31ed460028c1f34"


@pytest.fixture
def old_log(log) -> CorrectionLog:
    log.path.parent.mkdir(parents=True)
    connection = sqlite3.connect(log.path)
    connection.executescript(FIRST_LAYOUT)
    connection.close()
    return CorrectionLog(log.path)


def test_log_of_the_first_layout_is_read_as_it_is(old_log):
    before = old_log.path.read_bytes()
    assert [each.id for each in old_log] == [each.id for each in old_log.latest()]
    assert [(each.id, each.region) for each in old_log] == [("old-1", None), ("old-2", None)]
    assert [each.id for each in old_log.for_image("ct01")] == ["old-1", "old-2"]
    assert (old_log.get("old-1").text, old_log.count()) == ("Yes.", 2)
    assert old_log.path.read_bytes() == before


def test_log_of_the_first_layout_is_continued(old_log):
    old = old_log.rows()
    new = correction(region={"box_mm": [[0, 0, 0], [1, 1, 1]]})
    assert old_log.append(new)
    assert old_log.rows() == [*old, new]
    assert not old_log.append(old[0])


def test_digest_of_corrections_without_a_region_stays_what_it_was(old_log):
    assert rows_digest(old_log.rows()) == FIRST_LAYOUT_DIGEST


# The hash chain


def behind_the_logs_back(log, *statements):
    """Change the file as someone would who wants the log to say something else."""
    connection = sqlite3.connect(log.path, isolation_level=None)
    for name in ("changed", "deleted", "replaced"):
        connection.execute(f"DROP TRIGGER IF EXISTS corrections_are_not_{name}")
    for statement in statements:
        connection.execute(statement)
    connection.close()


@pytest.fixture
def chained(log) -> CorrectionLog:
    for number in range(6):
        log.append(correction(id=f"c{number + 1}", region=None if number % 2 else BOX))
    return log


BOX = {"box_mm": [[0, 0, 0], [1, 1, 1]]}
SWAP = (
    "UPDATE corrections SET seq = -1 WHERE seq = 2",
    "UPDATE corrections SET seq = 2 WHERE seq = 5",
    "UPDATE corrections SET seq = 5 WHERE seq = -1",
)


def test_log_that_nobody_touched_is_whole(chained):
    found = chained.verify()
    assert (found.is_whole, found.rows, found.unlinked) == (True, 6, 0)
    chained.append(correction())
    assert chained.verify(noted=found.head).is_whole
    assert chained.verify().head != found.head


@pytest.mark.parametrize("there", [False, True])
def test_log_without_rows_is_whole(log, there):
    if there:
        log.path.parent.mkdir()
        log.path.touch()
    found = log.verify()
    assert (found.is_whole, found.rows, found.head) == (True, 0, None)


@pytest.mark.parametrize(
    ("named", "statements"),
    [
        (["row 3 was changed"], ["UPDATE corrections SET text = 'forged' WHERE seq = 3"]),
        (
            ["row 3 was changed"],
            ["UPDATE corrections SET question = question || ' ' WHERE seq = 3"],
        ),
        (["row 3 was changed"], ["UPDATE corrections SET region = NULL WHERE seq = 3"]),
        (["row 3 was changed"], ["UPDATE corrections SET author = x'00ff' WHERE seq = 3"]),
        (["row 3 was changed"], ["UPDATE corrections SET link = NULL WHERE seq = 3"]),
        (["row 3 is missing", "row 4"], ["DELETE FROM corrections WHERE seq = 3"]),
        (["row 1 is missing", "row 2"], ["DELETE FROM corrections WHERE seq = 1"]),
        (["rows 5 to 6 are missing"], ["DELETE FROM corrections WHERE seq >= 5"]),
        (["row 2", "row 5"], SWAP),
    ],
)
def test_a_changed_removed_or_moved_row_is_found(chained, named, statements):
    behind_the_logs_back(chained, *statements)
    found = chained.verify()
    assert not found.is_whole
    for words in named:
        assert any(fault.startswith(words) for fault in found.faults)


def test_an_invented_row_is_found(chained):
    behind_the_logs_back(
        chained,
        "INSERT INTO corrections (id, images, task, model_text, verdict, text, author, created)"
        " VALUES ('x', '[\"ct01\"]', 'caption', 'a', 'edited', 'b', 'r', '2026-08-01T09:30:00Z')",
    )
    assert chained.verify().faults == ("row 7 was changed, or is not where it was recorded",)


def test_a_log_that_was_written_anew_lacks_the_head_that_was_noted(chained, tmp_path):
    anew = CorrectionLog(tmp_path / "anew.sqlite")
    for row in chained.rows()[:4]:
        anew.append(row)
    assert anew.verify().is_whole
    [fault] = anew.verify(noted=chained.verify().head).faults
    assert "noted" in fault


def test_chain_of_an_old_log_begins_with_the_next_row_and_covers_those_before(old_log):
    assert (old_log.verify().is_whole, old_log.verify().head) == (True, None)
    old_log.append(correction())
    old_log.append(correction())
    found = old_log.verify()
    assert (found.is_whole, found.rows, found.unlinked) == (True, 4, 2)
    behind_the_logs_back(old_log, "UPDATE corrections SET text = 'No.' WHERE seq = 1")
    [fault] = old_log.verify().faults
    assert fault.startswith("row 3, or one of the 2 before the chain began")


# Several writers


def test_threads_append_together(log):
    made = [[correction() for _ in range(10)] for _ in range(4)]
    threads = [
        threading.Thread(target=lambda mine=mine: [log.append(each) for each in mine])
        for mine in made
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {each.id for each in log} == {each.id for mine in made for each in mine}
    assert log.verify().is_whole


def test_a_first_writer_who_is_overtaken_still_knows_the_file(log):
    log.path.parent.mkdir(parents=True, exist_ok=True)
    overtaker = threading.Thread(target=lambda: log.append(correction()))

    def overtake(statement):
        if statement == "PRAGMA user_version":
            slow.set_trace_callback(None)
            overtaker.start()
            overtaker.join(timeout=0.5)  # it may have to wait for this reader, and then loses

    slow = sqlite3.connect(log.path, isolation_level=None)
    slow.set_trace_callback(overtake)
    try:
        log._file.set_up(slow)
    finally:
        slow.close()
        overtaker.join()
    assert len(log.rows()) == 1


APPEND_AT_A_SIGN = """
import sys, time
from pathlib import Path
from radfound.records.corrections import Correction, CorrectionLog
path, who, go = sys.argv[1:]
fields = dict(images=("ct01",), task="caption", model_text="a", verdict="rejected", author=who)
print("ready", flush=True)
while not Path(go).exists():
    time.sleep(0.001)
log = CorrectionLog(path)
for number in range(40):
    log.append(Correction(id=f"{who}-{number}", **fields))
print(log.append(Correction(id="both", **{**fields, "author": "same"})))
"""


@pytest.mark.parametrize("beginning", ["log", "old_log"])
def test_two_processes_append_together_from_the_first_row_on(beginning, request, tmp_path):
    log = request.getfixturevalue(beginning)
    before = {each.id for each in log}
    go = tmp_path / "go"
    writers = [start(APPEND_AT_A_SIGN, log.path, who, go) for who in ("a", "b")]
    for writer in writers:
        assert writer.stdout.readline() == "ready\n"
    go.touch()
    news = [writer.communicate(timeout=60)[0].strip() for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0]
    assert sorted(news) == ["False", "True"]
    expected = {f"{who}-{number}" for who in ("a", "b") for number in range(40)} | {"both"}
    assert [each.id for each in log if each.id == "both"] == ["both"]
    assert {each.id for each in log} == expected | before
    assert log.verify().is_whole


APPEND_FOR_EVER = """
import sys
from radfound.records.corrections import Correction, CorrectionLog
log = CorrectionLog(sys.argv[1])
print("ready", flush=True)
while True:
    made = Correction(images=("ct01",), task="caption", model_text="a", verdict="edited",
                      text="b" * 5000, author="r")
    log.append(made)
    print(made.id, flush=True)
"""


def test_no_acknowledged_correction_is_lost_when_the_writer_is_killed(log):
    moments = random.Random(0)
    acknowledged = []
    for number in range(8):
        writer = start(APPEND_FOR_EVER, log.path)
        assert writer.stdout.readline() == "ready\n"
        if number % 2:  # not all are killed at their first row, however slow the machine
            acknowledged.append(writer.stdout.readline().strip())
        time.sleep(moments.uniform(0, 0.15))
        writer.send_signal(signal.SIGKILL)
        acknowledged += writer.communicate(timeout=60)[0].split("\n")[:-1]

        survivors = CorrectionLog(log.path)
        recorded = [each.id for each in survivors]
        assert set(acknowledged) <= set(recorded)
        assert len(recorded) <= len(acknowledged) + 8
        assert survivors.verify().is_whole
        assert survivors.append(correction())
        acknowledged.append(survivors.rows()[-1].id)
    assert len(acknowledged) >= 12


# Damage


def test_text_file_in_the_logs_place_is_named(tmp_path):
    path = tmp_path / "corrections.sqlite"
    path.write_text("this is not a database, " * 100)
    with pytest.raises(StorageError, match=r"corrections\.sqlite: .*move it away"):
        CorrectionLog(path)
    assert path.read_text().startswith("this is not")


def test_damaged_pages_are_found_when_the_log_is_opened(log):
    for _ in range(30):
        log.append(correction(text="x" * 2_000))
    content = bytearray(log.path.read_bytes())
    content[8192:40960] = random.Random(0).randbytes(40960 - 8192)
    log.path.write_bytes(content)
    with pytest.raises(StorageError, match="damaged|not a whole"):
        CorrectionLog(log.path)


def test_truncated_log_is_found_when_it_is_opened(log):
    for _ in range(30):
        log.append(correction(text="x" * 2_000))
    os.truncate(log.path, 20_000)
    with pytest.raises(StorageError):
        CorrectionLog(log.path)


def test_damage_under_a_running_log_is_an_error_of_the_one_tree(log):
    log.append(correction())
    log.path.write_bytes(b"\xff" * 8192)
    for action in (log.rows, log.count, lambda: log.append(correction())):
        with pytest.raises(StorageError):
            action()


def test_database_of_something_else_is_left_alone(tmp_path):
    path = tmp_path / "other.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE patients (name TEXT)")
    connection.commit()
    connection.close()
    before = path.read_bytes()
    with pytest.raises(StorageError, match="something else"):
        CorrectionLog(path)
    assert path.read_bytes() == before


def test_log_of_a_newer_layout_asks_for_an_update(log):
    log.append(correction())
    connection = sqlite3.connect(log.path)
    connection.execute("PRAGMA user_version = 4")
    connection.close()
    with pytest.raises(StorageError, match="update RadFound"):
        CorrectionLog(log.path)


def test_empty_file_left_by_a_kill_at_the_very_start_is_a_new_log(tmp_path):
    path = tmp_path / "corrections.sqlite"
    path.touch()
    log = CorrectionLog(path)
    assert log.rows() == []
    assert log.append(correction())
    assert log.count() == 1


def test_folder_that_cannot_be_written_is_named(unwritable_folder):
    log = CorrectionLog(unwritable_folder / "corrections.sqlite")
    with pytest.raises(StorageError, match=r"corrections\.sqlite: .*can be written"):
        log.append(correction())


def test_folder_in_the_logs_place_is_named(tmp_path):
    with pytest.raises(StorageError, match=tmp_path.name):
        CorrectionLog(tmp_path)


@pytest.mark.parametrize("text", ["", " \n", "\u200b", "\u200b \u2060\t"])
def test_an_edit_of_which_nothing_can_be_seen_is_refused(text):
    with pytest.raises(CorrectionError, match="text: found nothing"):
        correction(verdict="edited", text=text)


def test_several_corrections_are_recorded_all_or_none(log):
    first, second = correction(id="c-1"), correction(id="c-2")
    assert log.extend([first, first, second]) == [True, False, True]
    with pytest.raises(CorrectionError, match="^id: a different correction"):
        log.extend([correction(id="c-3"), correction(id="c-1", text="No.")])
    assert [row.id for row in log] == ["c-1", "c-2"]
    assert log.verify().is_whole


# Withdrawals


def test_withdrawn_correction_is_left_out_of_every_query_but_stays_on_record(log):
    first, second = correction(), correction(images=("ct02",))
    log.append(first)
    log.append(second)
    assert log.withdraw(first.id, "reader 2")
    assert log.rows() == log.latest() == [second]
    assert list(log) == [second]
    assert log.for_image("ct01") == [] and log.images() == {"ct02"} and log.count() == 1
    assert log.rows(withdrawn=True) == [first, second]
    assert log.get(first.id) == first
    [withdrawal] = log.withdrawals()
    assert (withdrawal.correction, withdrawal.author) == (first.id, "reader 2")


def test_older_correction_holds_again_when_the_newer_is_withdrawn(log):
    older, newer = correction(), correction(text="No effusion.")
    log.append(older)
    log.append(newer)
    log.withdraw(newer.id, "reader 1")
    assert log.latest() == [older]


def test_second_withdrawal_changes_nothing(log):
    log.append(made := correction())
    assert log.withdraw(made.id, "reader 1")
    assert not log.withdraw(made.id, "reader 2")
    assert len(log.withdrawals()) == 1


def test_withdrawn_correction_sent_again_stays_withdrawn(log):
    log.append(made := correction())
    log.withdraw(made.id, "reader 1")
    assert not log.append(made)
    assert log.rows() == []


def test_withdrawal_of_an_unknown_correction_is_refused(log):
    with pytest.raises(NotFoundError):
        log.withdraw("unknown", "reader 1")
    log.append(made := correction())
    log.withdraw(made.id, "reader 1")
    with pytest.raises(NotFoundError):  # a withdrawal is no correction
        log.withdraw(log.withdrawals()[0].id, "reader 1")
    with pytest.raises(CorrectionError, match="author"):
        log.withdraw(made.id, " ")


def test_correction_with_the_id_of_a_withdrawal_is_refused(log):
    log.append(made := correction())
    log.withdraw(made.id, "reader 1")
    with pytest.raises(CorrectionError, match="already recorded"):
        log.append(correction(id=log.withdrawals()[0].id))


def test_withdrawal_is_a_link_of_the_hash_chain(log):
    log.append(made := correction())
    head = log.verify().head
    log.withdraw(made.id, "reader 1")
    log.append(correction())
    found = log.verify(head)
    assert found.is_whole and found.rows == 3


def test_rows_since_a_number_hold_corrections_and_withdrawals_in_order(log):
    assert log.since(0) == (0, [])
    log.append(made := correction())
    newest, _ = log.since(0)
    log.withdraw(made.id, "reader 1")
    number, found = log.since(newest)
    assert number == 2 and [each.correction for _, each in found] == [made.id]
    assert log.since(number) == (2, [])


def test_log_of_the_layout_before_withdrawals_is_read_unchanged_and_then_extended(log):
    log.append(made := correction())
    with sqlite3.connect(log.path) as connection:
        connection.execute("ALTER TABLE corrections DROP COLUMN withdraws")
        connection.execute("PRAGMA user_version = 2")
    connection.close()
    head = log.verify().head
    assert log.rows() == log.rows(withdrawn=True) == [made]
    assert log.count() == 1 and log.since(0) == (1, [(1, made)])
    assert log.withdraw(made.id, "reader 1")
    assert log.rows() == [] and log.verify(head).is_whole
