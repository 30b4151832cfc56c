"""A department's study from its `study.yaml` to the analysis, rated by three readers in a browser."""

import signal

import pytest

from radfound.reader_study.analysis.analyse import analyse
from radfound.reader_study.rating.ratings import RatingStore

from .reading_room import GOOD, POOR, SOURCES, AtScreen, make_study, running_browser, serving

CASES_SHOWN = 12  # ten, and two of them again
RATINGS_OF_A_CASE = 11  # two texts on five scales, and which one is better


@pytest.fixture(scope="module")
def browser():
    with running_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def heard() -> list[bytes]:
    """All that reached a browser: addresses, headers and contents."""
    return []


@pytest.fixture(scope="module")
def rated(browser, heard, tmp_path_factory):
    """The study, when all three readers are done."""
    created = make_study(tmp_path_factory.mktemp("study"))
    with serving(created.plan.folder) as server:
        first, second, third = (
            AtScreen(browser, server.link(created, reader), size)
            for reader, size in zip(
                created.addresses, [(1280, 800), (820, 1180), (1920, 1080)], strict=True
            )
        )
        first.page.on("response", lambda response: heard.append(_heard(response)))
        first.open()
        first.begin()
        assert first.rate_all() == CASES_SHOWN * RATINGS_OF_A_CASE
        first.wait_until_saved()
        first.close()

        second.open()
        second.begin()
        second.rate_all(at_most_cases=4)
        second.rate_case(at_most=3)
        second.wait_until_saved()
        second.close()
        server.stop(signal.SIGKILL)  # over night
        server.start()
        again = AtScreen(browser, server.link(created, "reader-2"), (820, 1180))
        again.open()
        again.wait_for_case(5)  # the first that is not finished, with what was said of it
        assert again.page.locator(".row.answered").count() == 3
        assert (
            again.page.locator(".row.current legend")
            .inner_text()
            .endswith("Safety (potential for harm)")
        )
        again.rate_all()
        again.wait_until_saved()
        again.close()

        third.open()
        third.begin()
        third.rate_all()
        third.page.get_by_label("Yes", exact=True).check()
        third.wait_until_saved()
        third.open()  # nothing is left to do
        assert third.page.locator("h1").inner_text() == "Thank you. You are done."
        third.close()
    return created


def _heard(response) -> bytes:
    try:
        body = response.body()
    except Exception:  # noqa: BLE001 - the page went on before it was read
        body = b""
    return f"{response.url} {response.all_headers()}\n".encode() + body


def test_every_rating_of_three_readers_is_kept(rated):
    store = RatingStore(rated.plan)
    for reader in rated.plan.readers:
        assert store.complete(reader) == {item.id for item in reader.items}
    assert store.has_agreed("reader-3") is True and store.has_agreed("reader-1") is None
    assert all(rating.seconds < 600 for rating in store.rows())


def test_the_analysis_finds_what_the_readers_thought(rated, tmp_path):
    results = analyse(rated.plan.folder, tmp_path)
    means = {(each["criterion"], each["source"]): each["value"] for each in results["means"]}
    assert means["correctness", GOOD] == 4 and means["safety", GOOD] == 5
    assert means["correctness", POOR] == 1 and means["safety", POOR] == 2
    assert all(each["p_holm"] < 0.05 for each in results["comparisons"])
    assert [each["value"] for each in results["win_rates"]] == [1, 0]
    assert results["between_readers"][0]["alpha"] == 1
    assert (tmp_path / "report.md").is_file() and (tmp_path / "ratings.csv").is_file()


def test_nothing_that_reached_the_browser_names_a_source_or_a_case(rated, heard):
    assert len(heard) > 100
    everything = b"\n".join(heard).lower()
    assert b"no effusion" in everything
    secrets = [*SOURCES, "pneumonia", "exam-", "brain-", "belly", "key.json", "cases/"]
    secrets += [case.id for case in rated.plan.cases]
    assert [each for each in secrets if each.encode() in everything] == []


def test_no_token_was_sent_in_an_address(rated, heard):
    addresses = b"\n".join(each.split(b" ")[0] for each in heard)
    assert b"/study" in addresses and b"#" not in addresses
    for address in rated.addresses.values():
        assert address.split("#")[1].encode() not in addresses


def test_the_browser_asked_nobody_else(heard):
    assert {each.split(b"/")[2].split(b":")[0] for each in heard} == {b"127.0.0.1"}
