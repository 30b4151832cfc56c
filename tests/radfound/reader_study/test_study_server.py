import json
import signal
import sqlite3
import threading
import time
import urllib.error
import urllib.request

import pytest
from fastapi.testclient import TestClient

from radfound.exceptions import ReaderStudyError, RequestError
from radfound.reader_study.design.plan import Plan
from radfound.reader_study.rating.ratings import RatingStore
from radfound.reader_study.rating.server import create_app, serve

from .reading_room import GOOD, POOR, Server, make_study, serving, token_of


@pytest.fixture(scope="module")
def created(tmp_path_factory):
    return make_study(tmp_path_factory.mktemp("study"))


@pytest.fixture
def plan(created) -> Plan:
    """The study, with nothing rated yet."""
    for path in created.plan.folder.glob("ratings.sqlite*"):
        path.unlink()
    return Plan.load(created.plan.folder)


@pytest.fixture
def client(plan) -> TestClient:
    return TestClient(create_app(plan))


@pytest.fixture
def bearer(created):
    def headers(reader: str) -> dict[str, str]:
        return {"Authorization": f"Bearer {token_of(created.addresses[reader])}"}

    return headers


def score(item, value="4", criterion="correctness", **more) -> dict:
    subject = {"item": item.id, "candidate": item.candidates[0].id, "name": criterion}
    return {"kind": "score", "value": value, "seconds": 1.5, **subject, **more}


def addresses_of(item, client, headers) -> list[str]:
    """Every address that belongs to an item: its own and those of its first slices."""
    images = client.get(f"/items/{item.id}", headers=headers).json()["images"]
    slices = [f"/{at}/{each['stacks'][0]['axis']}/0" for at, each in enumerate(images)]
    return [f"/items/{item.id}", *(f"/items/{item.id}/images{each}" for each in slices)]


def test_a_reader_sees_the_study_in_its_order(client, plan, bearer):
    study = client.get("/study", headers=bearer("reader-2")).json()
    assert [each["id"] for each in study["items"]] == [each.id for each in plan.readers[1].items]
    assert study["title"] == "Effusions" and study["reader"] == "reader-2"
    assert study["agreed"] is None and not study["started"]
    assert not any(each["complete"] for each in study["items"])


def test_an_item_has_its_texts_in_shown_order(client, plan, bearer):
    item = plan.readers[0].items[0]
    shown = client.get(f"/items/{item.id}", headers=bearer("reader-1")).json()
    assert shown["candidates"] == [vars(each) for each in item.candidates]
    assert shown["pairs"] == [list(pair) for pair in item.pairs]


def test_what_was_said_comes_back(client, plan, bearer):
    item = plan.readers[0].items[0]
    for value in ("2", "5"):
        said = client.post("/ratings", json=score(item, value), headers=bearer("reader-1"))
        assert said.json() == {"saved": True}
    client.post("/ratings", json={"kind": "agreement", "value": "no"}, headers=bearer("reader-1"))
    shown = client.get(f"/items/{item.id}", headers=bearer("reader-1")).json()
    assert [(each["name"], each["value"]) for each in shown["ratings"]] == [("correctness", "5")]
    study = client.get("/study", headers=bearer("reader-1")).json()
    assert study["started"] and study["agreed"] is False
    assert not client.get("/study", headers=bearer("reader-2")).json()["started"]
    row = RatingStore(plan).rows()[0]
    assert (row.reader, row.value, row.seconds) == ("reader-1", "2", 1.5)


def test_a_token_opens_no_other_readers_pages(client, plan, bearer):
    for item in plan.readers[0].items[:3]:
        for address in addresses_of(item, client, bearer("reader-1")):
            assert client.get(address, headers=bearer("reader-1")).status_code == 200
            assert client.get(address, headers=bearer("reader-2")).status_code == 404
        refused = client.post("/ratings", json=score(item), headers=bearer("reader-2"))
        assert refused.status_code == 404
    assert RatingStore(plan).rows() == []


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer "},
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Basic cmVhZGVyLTE6"},
        {"Authorization": "Bearer \xff\xfe"},
        {"Cookie": "token=wrong"},
    ],
)
def test_without_a_token_there_is_nothing_but_the_empty_page(client, plan, bearer, headers):
    item = plan.readers[0].items[0]
    headers = {name: value.encode("latin-1") for name, value in headers.items()}
    for address in ["/study", *addresses_of(item, client, bearer("reader-1"))]:
        refused = client.get(address, headers=headers)
        assert refused.status_code == 401
        assert refused.json()["detail"]["code"] == "token_needed"
    assert client.post("/ratings", json=score(item), headers=headers).status_code == 401
    assert client.get("/", headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "stranger.example"}, 421),
        ({"Origin": "http://stranger.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
    ],
)
def test_pages_of_others_get_nothing_even_with_a_token(client, plan, bearer, headers, status):
    headers = {**bearer("reader-1"), **headers}
    said = score(plan.readers[0].items[0])
    replies = [client.get(address, headers=headers) for address in ("/", "/study")]
    replies.append(client.post("/ratings", json=said, headers=headers))
    assert [reply.status_code for reply in replies] == [status] * 3
    assert all("default-src 'none'" in r.headers["Content-Security-Policy"] for r in replies)
    assert RatingStore(plan).rows() == []


def test_readers_come_by_the_address_that_they_were_given(tmp_path):
    plan = make_study(tmp_path, address="https://study.example.org/").plan
    client = TestClient(create_app(Plan.load(plan.folder)))
    own = {"Host": "study.example.org", "Origin": "https://study.example.org"}
    assert client.get("/", headers=own).status_code == 200
    assert client.get("/", headers={"Host": "other.example.org"}).status_code == 421


def test_a_study_that_was_made_before_addresses_were_kept_can_be_served(plan):
    path = plan.folder / "plan.json"
    made = json.loads(path.read_text())
    path.write_text(json.dumps({key: made[key] for key in made if key != "address"}))
    assert Plan.load(plan.folder).address == ""


def test_a_digest_from_the_plan_is_no_token(client, plan):
    headers = {"Authorization": f"Bearer {plan.readers[0].token_sha256}"}
    assert client.get("/study", headers=headers).status_code == 401


@pytest.mark.parametrize(
    "address",
    [
        "/page/../server.py",
        "/page/%2e%2e%2fkey.json",
        "/key.json",
        "/cases/",
        "/docs",
        "/page/index.html",
    ],
)
def test_no_other_file_is_given(client, address):
    assert client.get(address).status_code == 404


def test_what_does_not_exist_is_not_found(client, plan, bearer):
    item = plan.readers[0].items[0]
    for rest in ("/images/9/2/0", "/images/-1/2/0", "/images/0/7/0", "/images/0/2/99"):
        found = client.get(f"/items/{item.id}{rest}", headers=bearer("reader-1"))
        assert found.status_code == 404
    assert client.get(f"/items/{item.case}", headers=bearer("reader-1")).status_code == 404


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"value": "6"}, 400),
        ({"value": 4}, 400),
        ({"kind": "verdict"}, 400),
        ({"seconds": -1.0}, 400),
        ({"reader": "reader-2"}, 400),
        ({"name": "beauty"}, 404),
        ({"candidate": "nobody"}, 404),
        ({"value": "x" * 100_000}, 413),
    ],
)
def test_what_does_not_fit_is_refused_and_not_repeated(client, plan, bearer, change, status):
    said = score(plan.readers[0].items[0]) | change
    refused = client.post("/ratings", json=said, headers=bearer("reader-1"))
    assert refused.status_code == status
    assert "xxxx" not in refused.text and refused.json()["detail"]["message"]
    assert RatingStore(plan).rows() == []


def test_a_body_of_untold_length_is_refused(client, bearer):
    def endless():
        yield b"{}"

    headers = bearer("reader-1") | {"Content-Type": "application/json"}
    assert client.post("/ratings", content=endless(), headers=headers).status_code == 413


def test_every_response_keeps_the_study_where_it_is(client, plan, bearer):
    item = plan.readers[0].items[0]
    addresses = [
        "/",
        "/page/app.js",
        "/study",
        "/nowhere",
        *addresses_of(item, client, bearer("reader-1")),
    ]
    for address in addresses:
        headers = client.get(address, headers=bearer("reader-1")).headers
        assert headers["cache-control"] == "no-store"
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["x-content-type-options"] == "nosniff"
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy


def test_a_study_that_cannot_be_read_is_said_to_the_reader_and_logged(client, plan, bearer, caplog):
    item = plan.readers[0].items[0]
    paths = plan.paths(plan.case(item.case))
    content = {path: path.read_bytes() for path in paths}
    try:
        for path in paths:
            path.write_bytes(b"damaged")
        refused = client.get(f"/items/{item.id}", headers=bearer("reader-1"))
    finally:
        for path, old in content.items():
            path.write_bytes(old)
    assert refused.status_code == 503
    assert "leave the case for later" in refused.json()["detail"]["message"]
    assert item.case not in refused.text and paths[0].name not in refused.text
    assert item.case in caplog.text


def test_a_full_disk_is_said(client, plan, bearer, monkeypatch):
    def fail(*arguments, **choice):
        raise sqlite3.OperationalError("database or disk is full")

    item = plan.readers[0].items[0]
    monkeypatch.setattr(sqlite3, "connect", fail)
    refused = client.post("/ratings", json=score(item), headers=bearer("reader-1"))
    assert refused.status_code == 503 and "saved" not in refused.json()


# Blinding -----------------------------------------------------------------------------------------


def test_nothing_that_the_server_says_names_or_orders_the_sources(created, client, plan, bearer):
    said = []
    ids_in_order_of_source = []
    for reader in plan.readers:
        headers = bearer(reader.id)
        answers = [client.get(address) for address in ("/", "/page/app.js", "/page/form.js")]
        answers.append(client.get("/study", headers=headers))
        for item in reader.items:
            answers += [
                client.get(each, headers=headers) for each in addresses_of(item, client, headers)
            ]
            answers.append(client.post("/ratings", json=score(item), headers=headers))
            ids = [each.id for each in item.candidates]
            by_source = sorted(ids, key=lambda each: created.key.candidates[each])
            ids_in_order_of_source.append(
                (ids == by_source, ids == sorted(ids), by_source == sorted(by_source))
            )
        said += [
            f"{answer.url} {dict(answer.headers)}".encode() + answer.content for answer in answers
        ]
    everything = b"\n".join(said).lower()
    secrets = [
        GOOD,
        POOR,
        "pneumonia",
        "exam-",
        "brain-",
        "belly",
        "key.json",
        str(plan.folder),
        "cases/",
    ]
    secrets += [case.id for case in plan.cases] + list(created.key.cases)
    secrets += [path.name for case in plan.cases for path in plan.paths(case)]
    secrets += [reader.token_sha256 for reader in plan.readers]
    assert [each for each in secrets if each.lower().encode() in everything] == []
    # neither the shown order nor that of the ids follows the source: about half of 36 items each
    for agreeing in zip(*ids_in_order_of_source, strict=True):
        assert 4 <= sum(agreeing) <= 32


def test_a_repeated_case_is_known_by_none_of_its_ids(client, plan, bearer):
    reader = plan.readers[0]
    cases = [item.case for item in reader.items]
    first, again = next(
        (one, other)
        for at, one in enumerate(reader.items)
        for other in reader.items[at + 1 :]
        if one.case == other.case
    )
    assert len(cases) == 12 and len(set(cases)) == 10
    texts = [
        client.get(f"/items/{each.id}", headers=bearer("reader-1")).json()
        for each in (first, again)
    ]
    ids = [{each["id"], *(one["id"] for one in each["candidates"])} for each in texts]
    assert not ids[0] & ids[1]


def test_the_server_needs_no_key(plan, bearer):
    key = plan.folder / "key.json"
    hidden = key.rename(key.with_name("elsewhere"))
    try:
        client = TestClient(create_app(Plan.load(plan.folder)))
        for item in plan.readers[0].items:
            assert client.get(f"/items/{item.id}", headers=bearer("reader-1")).status_code == 200
    finally:
        hidden.rename(key)


# A real server ------------------------------------------------------------------------------------


def test_a_killed_server_has_every_acknowledged_rating(plan, created):
    token = token_of(created.addresses["reader-1"])
    acknowledged = []

    def rate(server: Server) -> None:
        """Say one thing after the other until the server is gone."""
        for number in range(100_000):
            item = plan.readers[0].items[number % 12]
            said = {
                "kind": "comment",
                "value": f"{number}",
                "item": item.id,
                "candidate": item.candidates[0].id,
            }
            request = urllib.request.Request(
                f"{server.address}/ratings",
                json.dumps(said).encode(),
                {"Authorization": f"Bearer {token}", "Content-Type": "application/json"},
            )
            try:
                with urllib.request.urlopen(request, timeout=10) as answer:
                    assert json.load(answer) == {"saved": True}
            except (OSError, urllib.error.URLError):
                return
            acknowledged.append(said["value"])

    with serving(plan.folder) as server:
        rater = threading.Thread(target=rate, args=(server,), daemon=True)
        rater.start()
        deadline = time.monotonic() + 30
        while len(acknowledged) < 40 and time.monotonic() < deadline:
            time.sleep(0.01)
        server.stop(signal.SIGKILL)
        rater.join(15)
    kept = [rating.value for rating in RatingStore(plan).rows()]
    assert len(acknowledged) >= 40
    assert kept[: len(acknowledged)] == acknowledged
    assert len(kept) - len(acknowledged) in (0, 1)  # one may have been written and not yet told


def test_a_port_in_use_is_said_in_one_line(plan):
    with serving(plan.folder) as server, pytest.raises(RequestError, match="choose others"):
        serve(plan.folder, port=server.port)


def test_a_folder_without_a_study_is_refused(tmp_path):
    with pytest.raises(ReaderStudyError, match=r"plan\.json"):
        serve(tmp_path)
