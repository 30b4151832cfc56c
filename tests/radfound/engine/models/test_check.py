"""`radfound models` on real servers and models."""

import json

import pytest

from radfound import cli
from tests.radfound.engine.openai.conftest import files, llama_url, scripted

__all__ = ["files", "llama_url", "scripted"]

SETTINGS = """
models:
  - {{name: smol, backend: openai, place: "{url}#smol", recipe: plain, limits: {{pictures: 2}}}}
"""


@pytest.fixture
def settings(llama_url, tmp_path):
    path = tmp_path / "models.yaml"
    path.write_text(SETTINGS.format(url=llama_url))
    return str(path)


def test_models_are_listed(settings, capsys):
    assert cli.main(["models", "list", "--models", settings]) == 0
    smol, mini = capsys.readouterr().out.splitlines()
    assert smol.split()[:2] == ["smol", "openai"]
    assert mini.split()[:3] == ["*", "radfound-mini", "radfound"]


def test_a_model_is_checked(settings, files, capsys):
    command = ["models", "check", "smol", "--models", settings, "--adapter", files["adapter"]]
    assert cli.main(command) == 0
    printed = capsys.readouterr().out
    assert "context          2048 tokens" in printed
    assert "images allowed   2 in one study" in printed
    assert "changes the log-probabilities: yes" in printed
    assert "images           stay on this machine" in printed
    assert "2 pictures (2 of 24 slices)" in printed
    assert printed.count("the picture changes the answer") == 3


def test_an_adapter_that_changes_nothing_is_told(settings, files, capsys):
    command = ["models", "check", "smol", "--models", settings, "--adapter", files["idle"]]
    assert cli.main(command) == 0
    assert "no: adapter a-0002: does not change" in capsys.readouterr().out


def test_a_model_that_ignores_the_picture_is_told(scripted, capsys):
    assert cli.main(["models", "check", f"openai:{scripted.url}", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [each["changed_by_picture"] for each in found["asked"]] == [False] * 3
    assert found["description"]["abilities"]["adapters"] == "none"


def test_a_recipe_that_does_not_fit_is_told(scripted, capsys):
    from tests.radfound.engine.openai.scripted import refusal

    async def overrun(body):
        words = "maximum context length is 4096 tokens (9000 in the messages)"
        return refusal(400, words)

    scripted.script = overrun
    assert cli.main(["models", "check", f"openai:{scripted.url}"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("DOES NOT FIT") == 3
    assert "about 3 pictures fit" in printed


def test_a_server_that_is_not_there_is_one_line(capsys):
    assert cli.main(["models", "check", "openai:http://127.0.0.1:9/v1#m"]) == 2
    assert "start the server" in capsys.readouterr().err
