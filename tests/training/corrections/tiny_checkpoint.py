"""radfound-tiny in a folder, with a regression set and replay as a released checkpoint has them."""

import torch

from radfound.model.checkpoints import REGRESSION, REPLAY, BundledStudy, load, write_bundled

QUESTION = "Is it CT?"


def write_checkpoint(folder, studies=40):
    """Every second study of the regression set is a CT; replay has two studies."""
    model, processor, _, _ = load("radfound-tiny")
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    shape = (studies + 2, model.config.num_visual_tokens, model.config.text_config.hidden_size)
    visual = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    known = [
        BundledStudy(each, ((QUESTION, ("Yes.", "No.")[number % 2]),))
        for number, each in enumerate(visual[:studies])
    ]
    replay = [BundledStudy(each, (("Where is it?", "Here."),)) for each in visual[studies:]]
    write_bundled(folder, REGRESSION, known)
    write_bundled(folder, REPLAY, replay)
    return folder
