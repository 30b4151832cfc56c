"""The settings of the models, by file and by name."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from radfound.engine.models.settings import Models, load_models, one_model, parse_models
from radfound.exceptions import ModelSettingsError

FILE = """
default: medgemma
memory_gb: 24
send_images_to: [gpu.example.org]
models:
  - name: medgemma
    backend: openai
    place: https://gpu.example.org/v1#google/medgemma-1.5-4b-it
    recipe: medgemma
    key: {env: VLLM_KEY}
    limits: {pictures: 40, answer_s: 120}
    adapters: /mnt/adapters
  - name: qwen
    backend: transformers
    place: /models/qwen
    bits: 4
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "models.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def changed(**fields):
    value = yaml.safe_load(FILE)
    value["models"][0].update(fields)
    return value


def test_a_file_lists_models_and_radfound_mini_is_always_there(tmp_path):
    models = load_models(written(tmp_path, FILE))
    assert [model.name for model in models.models] == ["medgemma", "qwen", "radfound-mini"]
    assert models.named().name == "medgemma"
    assert models.named().limits.pictures == 40
    assert models.named().limits.silence_s == 120
    assert models.named("qwen").bits == 4


def test_the_default_is_radfound_mini():
    assert parse_models({"models": []}).named().place == "radfound-mini"


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (changed(recipie="medgemma"), r"models\[0\].recipie: unknown; did you mean recipe\?"),
        (changed(limits={"answers": 3}), r"limits.answers: unknown; did you mean answer_s\?"),
        (changed(key={"enf": "A"}), r"key.enf: unknown; did you mean env\?"),
        ({**yaml.safe_load(FILE), "modells": []}, r"modells: unknown; did you mean models\?"),
        (changed(backend="openay"), "expected radfound or transformers or openai"),
        (changed(recipe="medgema"), "recipe: found 'medgema'"),
        (changed(name="qwen"), "two models have the name qwen"),
        (
            {**yaml.safe_load(FILE), "default": "qwem"},
            r"default: found 'qwem'; did you mean qwen\?",
        ),
        ({**yaml.safe_load(FILE), "send_images_to": []}, "gpu.example.org is not this machine"),
        (changed(limits={"pictures": 0}), "pictures: found 0"),
        (changed(limits={"answer_s": -1}), "answer_s"),
        (changed(key={}), "expected one of"),
        (changed(key={"env": "A", "file": "b"}), "expected one of"),
        (["models"], "expected"),
        (None, "expected"),
    ],
)
def test_what_is_wrong_is_named(value, words):
    with pytest.raises(ModelSettingsError, match=words):
        parse_models(value)


@pytest.mark.parametrize(
    "key", ["sk-0123456789abcdef", {"env": "sk-0123456789abcdef"}, {"key": "sk-0123456789abcdef"}]
)
def test_a_key_in_the_file_is_refused_and_not_repeated(key):
    with pytest.raises(ModelSettingsError, match="key") as found:
        parse_models(changed(key=key))
    assert "0123456789" not in str(found.value)


def test_a_key_in_the_address_is_refused_and_not_repeated():
    with pytest.raises(ModelSettingsError, match="holds a user, password or query") as found:
        parse_models(changed(place="https://me:sk-0123456789@gpu.example.org/v1"))
    assert "0123456789" not in str(found.value)


def test_a_key_comes_from_a_variable_or_a_file(tmp_path, monkeypatch):
    key = parse_models(changed()).named().key
    with pytest.raises(ModelSettingsError, match="the environment variable VLLM_KEY is not set"):
        key.read()
    monkeypatch.setenv("VLLM_KEY", "abc")
    assert key.read() == "abc"
    (tmp_path / "key").write_text("def\n")
    assert parse_models(changed(key={"file": str(tmp_path / "key")})).named().key.read() == "def"
    with pytest.raises(ModelSettingsError, match="the file none cannot be read"):
        parse_models(changed(key={"file": str(tmp_path / "none")})).named().key.read()


def test_a_file_that_is_no_yaml_is_refused(tmp_path):
    with pytest.raises(ModelSettingsError, match="no valid YAML near line 2"):
        load_models(written(tmp_path, "models:\n  - [}"))
    with pytest.raises(ModelSettingsError, match="cannot be read"):
        load_models(tmp_path / "none.yaml")
    with pytest.raises(ModelSettingsError):
        load_models(written(tmp_path, "models: !!python/object/apply:os.system [ls]"))


def test_a_host_can_be_allowed_beside_the_file(tmp_path):
    path = written(tmp_path, FILE.replace("send_images_to: [gpu.example.org]", ""))
    with pytest.raises(ModelSettingsError, match="send_images_to"):
        load_models(path)
    assert load_models(path, ["gpu.example.org"]).named().name == "medgemma"


def test_a_model_is_named_on_the_command_line(tmp_path):
    assert one_model("radfound-mini").named().backend == "radfound"
    served = one_model("openai:http://127.0.0.1:8001/v1#google/medgemma-4b").named()
    assert (served.name, served.backend) == ("medgemma-4b", "openai")
    assert one_model("openai:http://127.0.0.1:8001").named().name == "127.0.0.1:8001"
    folder = tmp_path / "medgemma"
    folder.mkdir()
    with pytest.raises(ModelSettingsError, match="no readable config.json"):
        one_model(str(folder))
    for model_type, backend in (("gemma3", "transformers"), ("radfound", "radfound")):
        (folder / "config.json").write_text(f'{{"model_type": "{model_type}"}}')
        assert one_model(str(folder)).named().backend == backend
    assert one_model(str(folder)).default == "medgemma"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("radfound-mimi", r"did you mean radfound-mini\?"),
        ("http://127.0.0.1:8001/v1", "write it as openai:http"),
        ("openai:http://10.0.0.9/v1", "send_images_to 10.0.0.9"),
        ("openai:nowhere", "expected an address such as"),
    ],
)
def test_a_name_that_is_none_is_refused(text, words):
    with pytest.raises(ModelSettingsError, match=words):
        one_model(text)


def test_an_unknown_model_of_a_request_is_named_with_the_nearest():
    models: Models = parse_models(yaml.safe_load(FILE))
    with pytest.raises(ModelSettingsError, match=r"did you mean medgemma\?"):
        models.named("medgema")


def test_memory_is_estimated_from_the_files(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "gemma3"}')
    (tmp_path / "model.safetensors").write_bytes(bytes(1_000_000))
    assert one_model(str(tmp_path)).named().memory_bytes == 1_200_000
    assert parse_models(changed()).named().memory_bytes == 0


def test_settings_are_read_without_torch_or_the_client():
    code = (
        "import sys, radfound.engine.models.settings, radfound.engine.models.registry\n"
        "import radfound.engine.models.cli, radfound.engine.models.build\n"
        "assert not {'torch', 'transformers', 'openai', 'httpx2'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
