import json

import pytest
import torch
from torch import nn

from radfound.exceptions import TrainingError
from training.loop.config import Draw, LoopConfig, epoch_order, learning_rate_factor
from training.loop.optimise import optimise


class Regression(nn.Module):
    """A linear fit whose targets carry a little noise of the draw."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.model = nn.Linear(3, 1)
        self.norm = nn.BatchNorm1d(3)
        self.data = torch.randn(64, 3)
        self.wanted = self.data @ torch.tensor([[1.0], [-2.0], [0.5]])

    def forward(self, draw):
        index = draw.indices(64)
        noise = 0.01 * torch.randn(len(index), 1, generator=draw.generator())
        error = self.model(self.norm(self.data[index])) - self.wanted[index] + noise
        return error.square().mean(), {"size": float(len(index))}


def config(**fields):
    wanted = dict(
        steps=60, learning_rate=0.1, batch_size=8, warmup_steps=5, log_every=1, checkpoint_every=7,
        precision="fp32",
    )  # fmt: skip
    return LoopConfig(**(wanted | fields))


def learn(some, objective=None, **keywords):
    objective = objective or Regression()
    history = optimise(objective, {1.0: objective.parameters()}, some, **keywords)
    return objective, history


def losses(history):
    return [record["loss"] for record in history]


class Stop(Exception):
    pass


def stop_at(step):
    def stop(progress):
        if progress.step == step:
            raise Stop

    return stop


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_loss_falls(precision):
    _, history = learn(config(precision=precision))
    assert history[-1]["loss"] < 0.05 * history[0]["loss"]
    assert history[-1]["size"] == 8.0


@pytest.mark.parametrize("fields", [{}, {"average": 0.9, "validate_every": 5, "patience": 50}])
def test_a_run_that_was_stopped_and_resumed_goes_on_as_if_it_had_not_been(tmp_path, fields):
    def run(objective, **keywords):
        def validate():
            return {"loss": objective.model.weight.square().sum().item()}

        if fields:
            keywords["validate"] = validate
        return learn(config(**fields), objective, **keywords)

    whole, curve = run(Regression())
    with pytest.raises(Stop):
        run(Regression(), folder=tmp_path, progress=stop_at(31))
    resumed, again = run(Regression(), folder=tmp_path)
    assert again == curve
    assert [json.loads(line) for line in (tmp_path / "log.jsonl").open()] == curve
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_a_finished_run_is_not_trained_again(tmp_path):
    first, curve = learn(config(average=0.9), folder=tmp_path)
    second, again = learn(config(average=0.9), folder=tmp_path)
    assert again == curve
    assert torch.equal(first.model.weight, second.model.weight)


def test_a_line_that_was_cut_off_does_not_stop_a_resumption(tmp_path):
    _, curve = learn(config(), folder=tmp_path)
    with (tmp_path / "log.jsonl").open("a") as file:
        file.write('{"step": 61, "lo')
    assert learn(config(), folder=tmp_path)[1] == curve


def test_a_checkpoint_of_other_settings_or_another_model_is_refused(tmp_path):
    learn(config(), folder=tmp_path)
    with pytest.raises(TrainingError, match="batch_size 8 there, 16 here"):
        learn(config(batch_size=16), folder=tmp_path)
    wider = Regression()
    wider.head = nn.Linear(3, 3)
    with pytest.raises(TrainingError, match="another model"):
        learn(config(), wider, folder=tmp_path)


def test_micro_batches_add_up_to_the_batch():
    plain, wanted = learn(config(steps=20), WithoutNorm())
    parts, found = learn(config(steps=20, accumulate=4), WithoutNorm())
    assert losses(found) == pytest.approx(losses(wanted), rel=1e-4)
    assert torch.allclose(plain.model.weight, parts.model.weight, atol=1e-5)


class WithoutNorm(Regression):
    """Batch statistics and noise depend on the parts; without them the parts must not matter."""

    def forward(self, draw):
        index = draw.indices(64)
        error = self.model(self.data[index]) - self.wanted[index] + 0 * self.norm.weight.sum()
        return error.square().mean() + 0 * self.norm.bias.sum(), {}


def test_processes_and_micro_batches_share_a_step_out_the_same_way():
    one = [Draw(3, micro, config(accumulate=4)) for micro in range(4)]
    two = [Draw(3, micro, config(accumulate=2), rank, 2) for micro in range(2) for rank in range(2)]
    assert [d.indices(50) for d in one] == [d.indices(50) for d in two]
    assert [d.seed for d in one] == [d.seed for d in two]
    assert sum([d.indices(50) for d in one], []) == epoch_order(50, 3, 8, 0)
    assert len({d.seed for d in one}) == 4 and Draw(4, 0, config()).seed != one[0].seed
    assert one[0].chooser().random() == two[0].chooser().random()


def test_a_batch_that_cannot_be_shared_out_is_a_clear_error():
    with pytest.raises(TrainingError, match="multiple of 3"):
        learn(config(accumulate=3))


@pytest.mark.parametrize(
    "fields, words",
    [
        ({"steps": 0}, "steps is 0"),
        ({"precision": "fp8"}, "precision"),
        ({"average": 1.0}, "average"),
        ({"patience": 2}, "validate_every"),
    ],
)
def test_settings_that_make_no_sense_are_refused(fields, words):
    with pytest.raises(TrainingError, match=words):
        config(**fields)


def test_a_run_stops_early_and_ends_with_the_best_weights():
    objective, seen = Regression(), []

    def validate():
        seen.append(objective.model.weight.detach().clone())
        return {"loss": [3.0, 1.0, 2.0, 1.5][len(seen) - 1]}

    _, history = learn(config(validate_every=5, patience=2), objective, validate=validate)
    assert [r["val_loss"] for r in history if "val_loss" in r] == [3.0, 1.0, 2.0, 1.5]
    assert history[-1]["step"] == 20
    assert torch.equal(objective.model.weight, seen[1])


def test_validation_sees_the_average_in_evaluation_mode_and_training_goes_on_undisturbed():
    plain, curve = learn(config(steps=10))
    objective, seen = Regression(), []

    def validate():
        seen.append((objective.norm.training, objective.model.weight.detach().clone()))
        return {"loss": 0.0}

    some = config(steps=10, average=0.99, validate_every=10)
    _, history = learn(some, objective, validate=validate)
    assert losses(history) == losses(curve)
    assert not seen[0][0] and objective.norm.training
    assert not torch.equal(objective.model.weight, plain.model.weight)
    assert torch.equal(objective.model.weight, seen[0][1])


def test_the_average_of_weights_that_stand_still_is_the_weights():
    objective = Regression()
    before = objective.model.weight.detach().clone()
    learn(config(steps=5, learning_rate=0.0, average=0.9), objective)
    assert torch.allclose(objective.model.weight, before)


def test_runs_of_different_precision_follow_each_other_in_one_process():
    objective = Regression()
    with pytest.raises(Stop):
        learn(config(precision="bf16"), objective, progress=stop_at(3))
    assert "forward" not in objective.__dict__
    _, interrupted = learn(config(precision="fp32", accumulate=2))
    _, fresh = learn(config(precision="fp32", accumulate=2))
    assert interrupted == fresh


def test_a_loss_that_is_not_finite_ends_the_run():
    class Broken(Regression):
        def forward(self, draw):
            return super().forward(draw)[0] * float("nan"), {}

    with pytest.raises(TrainingError, match="nan at step 1"):
        learn(config(), Broken())


def test_trainable_parameters_outside_the_groups_are_named():
    objective = Regression()
    with pytest.raises(TrainingError, match="norm.weight"):
        optimise(objective, {1.0: objective.model.parameters()}, config())
    stranger = nn.Linear(1, 1)
    with pytest.raises(TrainingError, match="none of the objective's"):
        optimise(objective, {1.0: stranger.parameters()}, config())


def test_curves_and_the_picture_are_kept(tmp_path):
    event_file = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    learn(config(steps=8), folder=tmp_path, picture=lambda: torch.rand(3, 4, 6))
    events = event_file.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [e.step for e in events.Scalars("training/loss")] == list(range(1, 9))
    assert [e.step for e in events.Images("picture")] == [7, 8]
    assert (tmp_path / "picture.png").is_file()


def test_every_epoch_shows_each_example_once_in_a_new_order():
    epochs = [
        [i for step in range(4 * e, 4 * e + 4) for i in epoch_order(12, step, 3, seed=1)]
        for e in range(2)
    ]
    assert sorted(epochs[0]) == sorted(epochs[1]) == list(range(12))
    assert epochs[0] != epochs[1]


def test_a_batch_may_be_larger_than_the_data():
    order = epoch_order(3, 0, 7, seed=0)
    assert [sorted(order[:3]), sorted(order[3:6]), len(order)] == [[0, 1, 2], [0, 1, 2], 7]
    with pytest.raises(TrainingError, match="no examples"):
        epoch_order(0, 0, 7, seed=0)


def test_the_rate_rises_and_then_falls_to_a_tenth():
    rates = [learning_rate_factor(step, config()) for step in range(60)]
    assert rates[0] == pytest.approx(0.2) and max(rates) == pytest.approx(1.0)
    assert rates[-1] == pytest.approx(0.1, abs=0.01)


def test_groups_learn_at_their_own_rate():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.fast, self.slow = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))

        def forward(self, draw):
            return (self.fast - 9).square().sum() + (self.slow - 9).square().sum(), {}

    both = Two()
    optimise(both, {1.0: [both.fast], 0.1: [both.slow]}, config(steps=20, learning_rate=0.05))
    assert both.fast.item() == pytest.approx(10 * both.slow.item(), rel=0.1)
