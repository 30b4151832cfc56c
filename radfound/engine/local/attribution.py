"""Gradient-weighted attention of an answer on a study, for evidence maps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext

import torch
import torch.nn.functional as F
from peft import PeftModel

from radfound.engine.local.kv_cache import forward_many
from radfound.model.modeling_radfound import Layer, RadFoundForConditionalGeneration
from radfound.model.processing_radfound import RadFoundProcessor, pad_frames
from radfound.study.evidence_map import Evidence, lay_back
from radfound.study.frames import make_frames
from radfound.study.region import Box, Plane
from radfound.study.study import Study


def find_evidence(
    model: RadFoundForConditionalGeneration,
    processor: RadFoundProcessor,
    study: Study,
    region: Box | Plane | None,
    prompt_ids: tuple[Sequence[int], Sequence[int]],
    answer_ids: Sequence[int],
    first: int = 0,
) -> Evidence:
    """Return the evidence maps of an answer.

    Parameters
    ----------
    model : RadFoundForConditionalGeneration
    processor : RadFoundProcessor
    study : Study
    region : Box, Plane or None
        As `radfound.study.frames.make_frames` takes it.
    prompt_ids : (sequence of int, sequence of int)
        The prompt's two pieces, as `RadFoundProcessor.prompt_ids` returns them.
    answer_ids : sequence of int
        Stop token included.
    first : int
        Index of the first token that is attributed; those before it are given.
    """
    config = processor.image_processor.frame_config
    frames = make_frames(study, config, region)
    inputs = {name: tensor.to(model.device) for name, tensor in pad_frames([frames]).items()}
    patches = patch_evidence(model, inputs, prompt_ids, answer_ids, first).cpu().numpy()
    return Evidence(
        lay_back(patches, frames.sources, config.image_size, study),
        tuple(image.affine for image in study.images),
        patches,
        frames.sources,
    )


def patch_evidence(
    model: RadFoundForConditionalGeneration,
    inputs: dict[str, torch.Tensor],
    prompt_ids: tuple[Sequence[int], Sequence[int]],
    answer_ids: Sequence[int],
    first: int = 0,
) -> torch.Tensor:
    """Return the relevance of each patch to an answer, float32, shape (F, N, N), not negative.

    Gradient-weighted attention after Chefer, Gur and Wolf (Generic Attention-model Explainability for
    Interpreting Bi-Modal and Encoder-Decoder Transformers, ICCV 2021, arXiv 2103.15679). A model with grid
    tokens sees on two ways: the relevance of its cells, gradient times input, has the same weight.

    Parameters
    ----------
    model : RadFoundForConditionalGeneration
    inputs : dict of tensors
        Of one study, as `radfound.model.processing_radfound.pad_frames` returns them.
    prompt_ids : (sequence of int, sequence of int)
        The prompt's two pieces, as `RadFoundProcessor.prompt_ids` returns them.
    answer_ids : sequence of int
        Stop token included; it is not attributed.
    first : int
        Index of the first token that is attributed; those before it are given.
    """
    vision, connector = model.vision_model, model.connector
    mask = inputs["frame_mask"]
    with torch.no_grad():
        stem = vision.stem_features(inputs["pixel_values"][0])[None]
    positions = {name: inputs[name] for name in ("positions_mm", "planes", "views")}
    with torch.enable_grad():
        stem.requires_grad_()
        with _recorded_attention(connector.layers) as attention:
            hidden = vision(stem_features=stem, frame_mask=mask, **positions).last_hidden_state
            cells = connector.cells(stem)
            visual = connector(hidden, mask, cells)
        score = _log_probability(model, visual, prompt_ids, answer_ids, first)
        seen = attention if cells is None else [*attention, cells]
        slopes = torch.autograd.grad(score, seen)
    products = [(each * slope).detach() for each, slope in zip(seen, slopes, strict=True)]
    side = round(hidden.shape[2] ** 0.5)
    by_attention = sum(each.abs()[0].mean(0).sum(0) for each in products[: len(attention)])
    relevance = by_attention.float().view(-1, side, side)
    if cells is None:
        return relevance
    by_cell = (
        products[-1].float().sum(-1).abs()[0].unflatten(-1, (round(cells.shape[2] ** 0.5), -1))
    )
    spread = F.interpolate(by_cell[:, None], size=(side, side), mode="bilinear")[:, 0]
    return sum(each / each.sum().clamp(min=1e-12) for each in (relevance, spread))


def _log_probability(
    model: RadFoundForConditionalGeneration,
    visual: torch.Tensor,
    prompt_ids: tuple[Sequence[int], Sequence[int]],
    answer_ids: Sequence[int],
    first: int,
) -> torch.Tensor:
    """Return the log-probability of an answer from a token on, without its stop token; a differentiable scalar."""
    answer_ids = answer_ids[:-1] or answer_ids
    before, after = (torch.tensor([list(ids)], device=model.device) for ids in prompt_ids)
    answer = torch.tensor([list(answer_ids)], device=model.device)
    language_model = model.language_model
    # The adapter acts after the study only, as during decoding.
    adapted = isinstance(language_model, PeftModel)
    with language_model.disable_adapter() if adapted else nullcontext():
        _, study = forward_many(model, (), model.merge_visual_embeds(before, visual), 1)
    rest = model.get_input_embeddings()(torch.cat([after, answer[:, :-1]], dim=1))
    logits, _ = forward_many(model, study, rest, answer.shape[1])
    return logits.float().log_softmax(-1).gather(-1, answer[..., None])[:, first:].sum()


@contextmanager
def _recorded_attention(layers: Iterable[Layer]) -> Iterator[list[torch.Tensor]]:
    """Record the attention weights of layers, in order of computation."""
    weights: list[torch.Tensor] = []
    for layer in layers:
        layer.attention.seen = weights
    try:
        yield weights
    finally:
        for layer in layers:
            layer.attention.seen = None
