import json
import re
import stat
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest

from radfound.benchmark.output import ANSWER_FIELDS
from radfound.cli import main
from radfound.exceptions import ReaderStudyError, RequestError
from radfound.reader_study.design.config import ADDRESS, read_config
from radfound.reader_study.design.create import create
from radfound.reader_study.design.key import Key
from radfound.reader_study.design.order import showings
from radfound.reader_study.design.plan import Plan
from radfound.reading import read_study

from .department import HUMAN, MODEL, OTHER, configuration, make_study, write_image, write_yaml


def test_a_study_is_made_of_answers_and_of_texts_that_people_wrote(tmp_path):
    made = make_study(tmp_path)
    plan, key = Plan.load(tmp_path / "study"), Key.load(made.plan)
    assert key == made.key
    assert key.sources == {HUMAN: "texts", MODEL: "answers", OTHER: "answers"}
    for reader in plan.readers:
        assert len(reader.items) == 6 + 2  # a third of six cases is shown twice
        for item in reader.items:
            known = key.cases[item.case]
            number = known.name[-1]
            texts = {key.candidates[each.id]: each.text for each in item.candidates}
            assert texts == {
                HUMAN: f"Small left pleural effusion {number}.",
                MODEL: f"Left effusion {number}.",
                OTHER: f"Nothing special {number}.",
            }
            assert known.reference == texts[HUMAN]
            assert (known.modality, known.organ_system) == (
                "digital radiography",
                "lungs and airways",
            )
            assert read_study(plan.paths(plan.case(item.case))).digest == known.digest


def test_the_columns_that_are_read_are_those_that_radfound_bench_writes(tmp_path):
    make_study(tmp_path)
    columns = (tmp_path / "answers.csv").read_text().splitlines()[0].split(",")
    assert set(columns) <= set(ANSWER_FIELDS)


# Blinding --------------------------------------------------------------------------------------


def test_nothing_but_the_key_names_a_source_or_a_case(tmp_path):
    study = make_study(tmp_path).plan.folder
    names = [str(file.relative_to(study)) for file in study.rglob("*")]
    text = "\n".join(
        [*names, (study / "plan.json").read_text(), (study / "tokens.txt").read_text()]
    )
    for word in (HUMAN, MODEL, OTHER, "patient-", "bench", "majority", "seed"):
        assert word not in text, word


def test_ids_say_nothing_even_to_those_who_know_the_seed(tmp_path):
    one, other = (make_study(tmp_path / name) for name in ("one", "other"))
    ids = [
        {each.id for reader in made.plan.readers for item in reader.items for each in (item, *item.candidates)}
        | {case.id for case in made.plan.cases}
        for made in (one, other)
    ]  # fmt: skip
    assert not ids[0] & ids[1]
    assert len(ids[0]) == 3 * 8 * (1 + 3) + 6  # every showing has ids of its own


def shown(made) -> list:
    return [
        [
            (made.key.cases[item.case].name, *(made.key.candidates[each.id] for each in item.candidates))
            for item in reader.items
        ]
        for reader in made.plan.readers
    ]  # fmt: skip


def test_one_seed_gives_one_order_and_another_seed_another(tmp_path):
    one, same, other = (
        make_study(tmp_path / str(k), seed=seed) for k, seed in enumerate((5, 5, 6))
    )
    assert shown(one) == shown(same) != shown(other)


def test_without_a_seed_one_is_drawn_and_noted_in_the_key_alone(tmp_path):
    made = make_study(tmp_path, seed=None)
    assert str(made.key.seed) not in (made.plan.folder / "plan.json").read_text()


def test_only_the_owner_may_read_tokens_and_key(tmp_path):
    study = make_study(tmp_path).plan.folder
    for name in ("tokens.txt", "key.json"):
        assert stat.S_IMODE((study / name).stat().st_mode) == 0o600


def test_tokens_are_kept_as_digests_and_are_no_part_of_the_seed(tmp_path):
    one, same = (make_study(tmp_path / name) for name in ("one", "same"))
    assert not set(one.addresses.values()) & set(same.addresses.values())
    for address in one.addresses.values():
        assert address.startswith(f"{ADDRESS}/#")
        assert address.partition("#")[2] not in (one.plan.folder / "plan.json").read_text()


def test_texts_differ_by_no_layout(tmp_path):
    config = configuration(tmp_path)
    config["cases"][0]["texts"][HUMAN] = "\n Findings:  none.\r\n\n\nImpression:\tnormal. \n"
    made = create(write_yaml(tmp_path, config), tmp_path / "study")
    known = next(case for case in made.key.cases.values() if case.name == "patient-0")
    assert known.texts[HUMAN].text == "Findings: none.\nImpression: normal."


def test_a_text_that_names_its_source_is_warned_about(tmp_path, caplog):
    config = configuration(tmp_path)
    config["cases"][2]["texts"][HUMAN] = "Effusion, signed dr. expert"
    create(write_yaml(tmp_path, config), tmp_path / "study")
    assert [record.getMessage() for record in caplog.records] == [
        f"case patient-2: the text of {HUMAN} names its source"
    ]


# Order -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cases", "sources", "readers"), [(12, 2, 3), (12, 3, 3), (10, 4, 4), (7, 3, 5)]
)
def test_sources_are_balanced_over_places(cases, sources, readers):
    for seed in range(20):
        plans = showings(cases, sources, readers, 0.25, seed)
        for plan in plans:
            once = [showing for showing in plan if not showing.repeat]
            assert sorted(showing.case for showing in once) == list(range(cases))
            for place in range(sources):
                counts = Counter(showing.sources[place] for showing in once)
                assert max(counts.values()) - min(counts.get(s, 0) for s in range(sources)) <= 1
        for case in range(
            cases
        ):  # over as many readers as sources, each source is once in each place
            orders = [
                next(showing.sources for showing in plan if showing.case == case)
                for plan in plans[:sources]
            ]
            if readers >= sources:
                assert len({order[0] for order in orders}) == sources


def test_the_order_of_one_case_does_not_foretell_the_next():
    followers: Counter = Counter()
    for seed in range(200):
        (plan,) = showings(36, 3, 1, 0.0, seed)
        followers.update((plan[k].sources[0], plan[k + 1].sources[0]) for k in range(len(plan) - 1))
    expected = sum(followers.values()) / 9
    assert all(abs(count - expected) < 0.12 * expected for count in followers.values())


def test_every_case_is_early_for_some_readers_and_late_for_others():
    places = np.zeros((200, 12))
    for seed in range(200):
        plans = showings(12, 2, 4, 0.0, seed)
        for plan in plans:
            for place, showing in enumerate(plan):
                places[seed, showing.case] += place / len(plans)
        firsts = {plan[0].case for plan in plans}
        assert len(firsts) == 4
    assert np.abs(places - 5.5).max() <= 3


def test_repeats_come_late_and_in_another_order():
    for seed in range(50):
        for plan in showings(20, 3, 3, 0.2, seed):
            again = [k for k, showing in enumerate(plan) if showing.repeat]
            assert len(again) == 4
            for k in again:
                before = next(j for j, showing in enumerate(plan) if showing.case == plan[k].case)
                assert k - before >= 10
                assert all(
                    a != b for a, b in zip(plan[k].sources, plan[before].sources, strict=True)
                )


# Other kinds of cases and sources --------------------------------------------------------------


def test_views_folders_and_volumes_are_copied_under_plain_names(tmp_path):
    for view in ("L_CC_Smith", "R_CC_Smith"):
        write_image(tmp_path / "exam" / f"{view}.png", 1)
    config = configuration(tmp_path, cases=1, repeats=0)
    config["cases"][0]["images"] = ["exam/L_CC_Smith.png", "exam/R_CC_Smith.png"]
    made = create(write_yaml(tmp_path, config), tmp_path / "study")
    (case,) = made.plan.cases
    assert [Path(image).name for image in case.images] == ["1.png", "2.png"]
    assert all(path.is_file() for path in made.plan.paths(case))


class Server(BaseHTTPRequestHandler):
    def do_POST(self):
        body = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        image = parse_qs(urlsplit(self.path).query)["image"][0]
        self.server.asked.append(
            (
                urlsplit(self.path).path,
                image,
                json.loads(body["params"][0]),
                self.headers["Authorization"],
            )
        )
        known = image != "gone"
        answer = {
            "id": f"answer-{image}",
            "text": f" Seen {image}",
            "model": {"name": "radfound-mini", "revision": "0123456789ab", "adapter": None},
        }
        detail = {"detail": {"code": "not_found", "message": "no image 'gone'"}}
        text = json.dumps(answer if known else detail).encode()
        self.send_response(200 if known else 404)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    server = HTTPServer(("127.0.0.1", 0), Server)
    server.asked = []
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join(5)


def from_server(tmp_path, server, **changes) -> dict:
    config = configuration(tmp_path, cases=2)
    address = f"http://127.0.0.1:{server.server_port}"
    config["sources"] = [{"name": HUMAN}, {"name": MODEL, "server": address}]
    config["cases"][0] |= {"task": "vqa", "question": "Is there an effusion?", **changes}
    return config


def test_a_running_server_is_asked_about_each_case(tmp_path, server, monkeypatch):
    monkeypatch.setenv("RADFOUND_TOKEN", "a-long-enough-token")
    config = from_server(tmp_path, server, server_images=["ct01", "ct02"])
    made = create(write_yaml(tmp_path, config), tmp_path / "study")
    assert server.asked == [
        (
            "/infer/radfound_vqa",
            "ct01",
            {"images": ["ct01", "ct02"], "question": "Is there an effusion?"},
            "Bearer a-long-enough-token",
        ),
        (
            "/infer/radfound_caption",
            "patient-1",
            {"images": ["patient-1"]},
            "Bearer a-long-enough-token",
        ),
    ]
    first = next(case for case in made.key.cases.values() if case.name == "patient-0")
    said = first.texts[MODEL]
    assert (said.text, said.answer_id) == ("Seen ct01", "answer-ct01")
    assert said.model is not None and said.model.revision == "0123456789ab"
    assert first.images == ("ct01", "ct02")


def test_what_a_server_refuses_and_a_server_that_is_not_there_are_told(tmp_path, server):
    path = write_yaml(tmp_path, from_server(tmp_path, server, server_images=["gone"]))
    with pytest.raises(ReaderStudyError, match="about case patient-0: no image 'gone'"):
        create(path, tmp_path / "study")
    server.server_close()
    server.shutdown()
    with pytest.raises(ReaderStudyError, match="is that a running RadFound server"):
        create(path, tmp_path / "study")
    assert not (tmp_path / "study").exists()


# Errors ----------------------------------------------------------------------------------------


def edited(config: dict, path: str, value: object) -> dict:
    *way, last = [int(step) if step.isdigit() else step for step in path.split(".")]
    here = config
    for step in way:
        here = here[step]
    if value is None:
        del here[last]
    else:
        here[last] = value
    return config


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("title", None, "study.yaml: title is missing"),
        ("title", 5, "title: found a number; expected text"),
        ("reader", 3, "unknown field 'reader'; did you mean 'readers'"),
        ("readers", 0, "readers: found 0; expected how many"),
        ("readers", ["anna", "anna"], "'anna' is there twice"),
        ("readers", ["anna b"], "readers 1: found 'anna b'; expected 1 to 64 letters"),
        ("repeats", 0.9, "repeats: found 0.9; expected a share"),
        ("seed", "x", "seed: found text; expected a whole number"),
        ("criteria", ["beauty"], "criteria 1: found 'beauty'; expected one of correctness"),
        ("criteria", [{"key": "x"}], "criteria 1: name is missing"),
        ("reference", "nobody", "reference: 'nobody' is none of the sources"),
        ("sources.1.server", "http://x", "has answers and a server"),
        ("sources.1.answers", "gone.csv", "gone.csv: cannot be read"),
        ("sources.1.column", "colour", "no column 'colour'; expected one of task, id"),
        ("sources.2.name", MODEL, f"'{MODEL}' is there twice"),
        ("cases.1.id", "patient-0", "'patient-0' is there twice"),
        ("cases.0.images", ["gone.png"], "gone.png not found; paths are relative"),
        ("cases.0.answer_id", "bench/x", "no caption answer with the id 'bench/x'"),
        ("cases.0.texts", {}, f"(patient-0): texts: that of '{HUMAN}' is missing"),
        ("cases.0.texts", {MODEL: "x"}, f"'{MODEL}' is none of the sources whose texts"),
        ("cases.0.task", "poem", "task: found 'poem'"),
        ("cases.0.task", "vqa", "needs a question"),
        ("cases.0.organ_system", "soul", "organ_system: found 'soul'"),
        ("cases", [], "cases: found an empty list"),
        ("cases.0", "x", "cases 1: found text; expected an object"),
    ],
)
def test_a_wrong_field_is_named_with_what_was_expected(tmp_path, path, value, message):
    config = edited(configuration(tmp_path), path, value)
    with pytest.raises(ReaderStudyError, match=re.escape(message)):
        create(write_yaml(tmp_path, config), tmp_path / "study")
    assert not (tmp_path / "study").exists()


def test_a_pair_needs_two_sources(tmp_path):
    config = configuration(tmp_path, sources=[{"name": HUMAN}])
    with pytest.raises(ReaderStudyError, match="pairwise needs two sources"):
        read_config(write_yaml(tmp_path, config))


def test_what_is_no_yaml_is_told(tmp_path):
    (tmp_path / "study.yaml").write_text("title: [unclosed")
    with pytest.raises(ReaderStudyError, match="cannot be read as YAML"):
        read_config(tmp_path / "study.yaml")
    with pytest.raises(ReaderStudyError, match="not found"):
        read_config(tmp_path / "gone.yaml")


def test_a_case_that_cannot_be_shown_is_found_before_the_readers_come(tmp_path):
    config = configuration(tmp_path)
    (tmp_path / "images" / "patient-3.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    with pytest.raises(ReaderStudyError, match="case patient-3: its images cannot be read"):
        create(write_yaml(tmp_path, config), tmp_path / "study")
    assert not (tmp_path / "study").exists()


def test_a_folder_that_holds_something_is_left_alone(tmp_path):
    made = make_study(tmp_path)
    before = (made.plan.folder / "plan.json").read_bytes()
    with pytest.raises(RequestError, match="holds something already"):
        create(tmp_path / "study.yaml", made.plan.folder)
    assert (made.plan.folder / "plan.json").read_bytes() == before


def test_the_key_of_another_study_is_refused(tmp_path):
    one, other = (make_study(tmp_path / name) for name in ("one", "other"))
    (one.plan.folder / "key.json").write_bytes((other.plan.folder / "key.json").read_bytes())
    with pytest.raises(ReaderStudyError, match="of another study"):
        Key.load(one.plan)
    (one.plan.folder / "key.json").unlink()
    with pytest.raises(ReaderStudyError, match=re.escape("no key.json")):
        Key.load(one.plan)


def test_the_command_line_prints_each_readers_address_once(tmp_path, capsys):
    config = write_yaml(tmp_path, configuration(tmp_path, address="https://reads.example/"))
    arguments = ["reader-study", "create", "--config", str(config), "--out", str(tmp_path / "s")]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    tokens = (tmp_path / "s" / "tokens.txt").read_text().splitlines()
    assert [line.split("\t")[0] for line in tokens] == ["reader-1", "reader-2", "reader-3"]
    for line in tokens:
        address = line.split("\t")[1]
        assert address.startswith("https://reads.example/#") and address in printed
    assert main(arguments) == 2
    assert "holds something already" in capsys.readouterr().err
