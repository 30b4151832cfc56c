import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoConfig, AutoModelForImageTextToText, AutoProcessor

from radfound.model.checkpoints import load
from radfound.model.configuration_radfound import RadFoundConfig, RadFoundVisionConfig
from radfound.model.modeling_radfound import RadFoundVisionModel


@pytest.fixture(scope="module")
def tiny():
    model, processor, _, _ = load("radfound-tiny")
    return model, processor


def frames(model, batch, count, seed=0):
    size = model.config.vision_config.image_size
    return torch.rand(batch, count, 3, size, size, generator=torch.Generator().manual_seed(seed))


def prompt(processor, question="What is shown?"):
    return torch.tensor([sum(processor.prompt_ids("vqa", question), [])])


def test_save_pretrained_and_the_auto_classes_round_trip(tiny, tmp_path):
    model, processor = tiny
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again = AutoModelForImageTextToText.from_pretrained(tmp_path).eval()
    reader = AutoProcessor.from_pretrained(tmp_path)
    inputs = {"input_ids": prompt(processor), "pixel_values": frames(model, 1, 3)}
    assert (
        AutoConfig.from_pretrained(tmp_path).vision_config.num_views
        == again.config.vision_config.num_views
    )
    assert reader.prompt_ids("report", None) == processor.prompt_ids("report", None)
    assert reader.image_processor.frame_config == processor.image_processor.frame_config
    with torch.no_grad():
        assert torch.equal(model(**inputs).logits, again(**inputs).logits)


def test_a_batch_of_studies_with_different_frame_counts_writes_what_each_writes_alone(tiny):
    model, processor = tiny
    pixels = frames(model, 3, 4)
    mask = torch.tensor([[True] * 4, [True] * 2 + [False] * 2, [True] + [False] * 3])
    questions = ["What?", "Where is the lesion?", "Is it large or small, and why?"]
    ids = [prompt(processor, question)[0].tolist() for question in questions]
    longest = max(map(len, ids))
    pad = processor.tokenizer.pad_token_id
    batch = {
        "input_ids": torch.tensor([[pad] * (longest - len(i)) + i for i in ids]),
        "attention_mask": torch.tensor([[0] * (longest - len(i)) + [1] * len(i) for i in ids]),
    }
    together = model.generate(
        **batch, pixel_values=pixels, frame_mask=mask, max_new_tokens=12, do_sample=False
    )
    for n, count in enumerate((4, 2, 1)):
        alone = model.generate(
            input_ids=torch.tensor([ids[n]]),
            pixel_values=pixels[n : n + 1, :count],
            max_new_tokens=12,
            do_sample=False,
        )
        text = processor.batch_decode(alone[:, len(ids[n]) :])
        assert processor.batch_decode(together[n : n + 1, longest:]) == text
        assert text != [""]


def test_padding_frames_change_nothing_and_a_black_frame_does(tiny):
    model, _ = tiny
    real = frames(model, 1, 2)
    padded = torch.cat([real, torch.rand_like(real)], dim=1)
    black = torch.cat([real, torch.zeros_like(real[:, :1])], dim=1)
    with torch.no_grad():
        plain = model.get_image_features(pixel_values=real)
        masked = model.get_image_features(
            pixel_values=padded, frame_mask=torch.tensor([[True, True, False, False]])
        )
        with_black = model.get_image_features(pixel_values=black)
    assert torch.allclose(plain, masked, atol=1e-5)
    assert not torch.allclose(plain, with_black, atol=1e-3)


def test_one_frame_is_read_differently_beside_its_neighbours():
    model, _, _, _ = load("radfound-tiny")
    pair = frames(model, 1, 2)
    other = torch.cat([pair[:, :1], frames(model, 1, 1, seed=9)], dim=1)
    with torch.no_grad():
        first, second = (model.vision_model(pixel_values=p) for p in (pair, other))
    assert torch.equal(first.frame_hidden_state[:, 0], second.frame_hidden_state[:, 0])
    assert not torch.allclose(
        first.last_hidden_state[:, 0], second.last_hidden_state[:, 0], atol=1e-4
    )


def test_gradient_reaches_every_parameter_that_is_meant_to_learn():
    model, processor, _, _ = load("radfound-tiny")
    model.train()
    ids = prompt(processor)
    labels = ids.clone()
    model(
        input_ids=ids,
        pixel_values=frames(model, 1, 2),
        positions_mm=torch.tensor([[[0.0, 0.0, -5.0], [0.0, 0.0, 5.0]]]),
        labels=labels.masked_fill(labels == model.config.image_token_id, -100),
    ).loss.backward()
    without = [
        name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0
    ]
    assert without == []


def test_an_efficientnet_stem_learns_and_keeps_its_statistics():
    config = RadFoundVisionConfig(
        image_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_context_layers=1,
        num_attention_heads=2,
    )
    model = RadFoundVisionModel(config).train()
    before = model.stem.last[1].running_mean.clone()
    pixels = torch.rand(3, 3, 64, 64)
    fresh = RadFoundVisionModel(config).stem
    assert torch.allclose(fresh(pixels)[:1], fresh(pixels[:1]), atol=1e-5), "also before .train()"
    output = model(pixel_values=torch.rand(1, 2, 3, 64, 64)).last_hidden_state
    output.square().sum().backward()
    assert output.shape == (1, 2, 4, 32)
    assert model.stem.first[0].weight.grad.abs().sum() > 0
    assert torch.equal(before, model.stem.last[1].running_mean)


def test_peft_applies(tiny):
    model, processor, _, _ = load("radfound-tiny")
    wrapped = get_peft_model(model, LoraConfig(target_modules=["q_proj", "v_proj"], r=2))
    logits = wrapped(input_ids=prompt(processor), pixel_values=frames(model, 1, 1)).logits
    assert logits.shape[-1] == model.config.text_config.vocab_size
    assert all("lora" in name for name, p in wrapped.named_parameters() if p.requires_grad)


def test_a_prompt_without_room_for_the_study_is_refused(tiny):
    model, _ = tiny
    with pytest.raises(ValueError, match="placeholders"):
        model(input_ids=torch.tensor([[1, 2, 3]]), pixel_values=frames(model, 1, 1))


@pytest.mark.parametrize("bad", [{"stem": "resnet"}, {"image_size": 100}, {"patch_size": 16}])
def test_a_configuration_that_does_not_fit_is_refused(bad):
    with pytest.raises(ValueError, match="stem|multiple"):
        RadFoundVisionConfig(**bad)


def test_any_causal_language_model_can_be_the_text_part():
    text = {"model_type": "gpt2", "n_embd": 32, "n_layer": 1, "n_head": 2, "vocab_size": 100}
    vision = {"image_size": 32, "patch_size": 16, "stem": "patch", "hidden_size": 16, "intermediate_size": 32,
              "num_attention_heads": 2}  # fmt: skip
    from radfound.model.modeling_radfound import RadFoundForConditionalGeneration

    model = RadFoundForConditionalGeneration(
        RadFoundConfig(vision, text, num_visual_tokens=2, image_token_id=100)
    )
    logits = model(
        input_ids=torch.tensor([[100, 100, 5]]), pixel_values=torch.rand(1, 1, 3, 32, 32)
    ).logits
    assert logits.shape == (1, 3, 100)
