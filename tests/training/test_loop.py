import pytest
import torch
from torch import nn

from training.loop import LoopConfig, epoch_order, learning_rate_factor, optimise


def regression():
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    data = torch.randn(64, 3)
    wanted = data @ torch.tensor([[1.0], [-2.0], [0.5]])

    def loss_of(step):
        index = epoch_order(64, step, 8, seed=0)
        noise = 0.01 * torch.randn(8, 1)
        return (model(data[index]) - wanted[index] + noise).square().mean(), {}

    return model, loss_of


CONFIG = LoopConfig(steps=60, learning_rate=0.1, warmup_steps=5, log_every=1, checkpoint_every=7)


def test_the_loss_falls():
    model, loss_of = regression()
    history = optimise(model, {1.0: model.parameters()}, loss_of, CONFIG)
    assert history[-1]["loss"] < 0.05 * history[0]["loss"]


def test_a_run_that_was_stopped_and_resumed_goes_on_as_if_it_had_not_been(tmp_path):
    model, loss_of = regression()
    whole = optimise(model, {1.0: model.parameters()}, loss_of, CONFIG)

    class Stop(Exception):
        pass

    def stop(progress):
        if progress.step == 30:
            raise Stop

    model, loss_of = regression()
    with pytest.raises(Stop):
        optimise(model, {1.0: model.parameters()}, loss_of, CONFIG, folder=tmp_path, progress=stop)
    model, loss_of = regression()
    rest = optimise(model, {1.0: model.parameters()}, loss_of, CONFIG, folder=tmp_path)
    assert rest[0]["step"] == 29, "the last checkpoint before step 30 is that of step 28"
    assert [r["loss"] for r in rest] == [r["loss"] for r in whole if r["step"] >= 29]


def test_every_epoch_shows_each_example_once_in_a_new_order():
    epochs = [
        [i for step in range(4 * e, 4 * e + 4) for i in epoch_order(12, step, 3, seed=1)]
        for e in range(2)
    ]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(12))
    assert epochs[0] != epochs[1]


def test_the_rate_rises_and_then_falls_to_a_tenth():
    rates = [learning_rate_factor(step, CONFIG) for step in range(60)]
    assert rates[0] == pytest.approx(0.2) and max(rates) == pytest.approx(1.0)
    assert rates[-1] == pytest.approx(0.1, abs=0.01)


def test_groups_learn_at_their_own_rate():
    fast, slow = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    nn.init.zeros_(fast.weight), nn.init.zeros_(slow.weight)
    both = nn.ModuleList([fast, slow])

    def loss_of(step):
        return (fast.weight - 9).square().sum() + (slow.weight - 9).square().sum(), {}

    optimise(
        both,
        {1.0: fast.parameters(), 0.1: slow.parameters()},
        loss_of,
        LoopConfig(20, 0.05, warmup_steps=1),
    )
    assert fast.weight.item() == pytest.approx(10 * slow.weight.item(), rel=0.1)
