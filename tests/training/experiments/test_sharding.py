from functools import partial

import pytest
import torch
from accelerate.utils import FullyShardedDataParallelPlugin
from accelerate.utils.fsdp_utils import fsdp2_prepare_auto_wrap_policy
from accelerate.utils.other import get_module_children_bottom_up
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.testing._internal.distributed.fake_pg import FakeStore

from radfound.model.modeling_radfound import RadFoundForConditionalGeneration
from radfound.model.sizes import size_config
from training.experiments.sharding import epoch_flops, main, memory, sharding_plan
from training.loop.processes import whole_modules


class Objective(nn.Module):
    def __init__(self, name):
        super().__init__()
        with torch.device("meta"):
            self.model = RadFoundForConditionalGeneration(size_config(name))


@pytest.fixture(scope="module")
def large():
    return Objective("radfound-7b")


@pytest.fixture
def eight_processes():
    torch.distributed.init_process_group("fake", rank=0, world_size=8, store=FakeStore())
    yield init_device_mesh("cpu", (8,))
    torch.distributed.destroy_process_group()


def test_radfound_7b_has_the_parameters_that_its_name_promises(large):
    parts = large.model.num_parameters_by_part
    assert all(p.is_meta for p in large.parameters())
    assert parts["language"] == pytest.approx(7.6e9, rel=0.01)
    assert parts["vision"] == pytest.approx(0.35e9, rel=0.02)
    assert sum(parts.values()) == sum(p.numel() for p in large.parameters())


def test_every_layer_of_radfound_7b_is_a_unit_of_its_own(large):
    units = sharding_plan(large, 8)
    layers = {(unit.kind, len(unit.names)) for unit in units}
    assert layers == {("Layer", 28), ("Layer", 6), ("Qwen2DecoderLayer", 28), ("the rest", 1)}
    whole = sum(len(unit.names) * unit.parameters for unit in units)
    assert whole == sum(p.numel() for p in large.parameters())
    kept = sum(len(unit.names) * unit.parameters_per_process for unit in units)
    assert whole / 8 <= kept < 1.001 * whole / 8


def test_the_plan_is_what_fsdp_does(large, eight_processes):
    units = sharding_plan(large, 8)
    large._no_split_modules = whole_modules(large)
    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2, auto_wrap_policy="transformer_based_wrap"
    )
    plugin.set_auto_wrap_policy(large)
    policy = fsdp2_prepare_auto_wrap_policy(plugin, large)
    for module in get_module_children_bottom_up(large)[:-1]:
        if policy(module):
            fully_shard(module, mesh=eight_processes)
    fully_shard(large, mesh=eight_processes)
    found = {name for name, module in large.named_modules() if isinstance(module, FSDPModule)}
    assert found == {name for unit in units for name in unit.names}
    kept = sum(p.to_local().numel() for p in large.parameters())
    assert kept == sum(len(unit.names) * unit.parameters_per_process for unit in units)


def test_radfound_7b_fits_on_eight_gpus_of_80_gib_and_not_on_one():
    objective = Objective("radfound-7b")
    assert memory(sharding_plan(objective, 8)).total < 40 * 2**30
    assert memory(sharding_plan(objective, 1)).total > 80 * 2**30
    adapter = memory(sharding_plan(objective, 8), learning=0.01)
    assert adapter.total < 10 * 2**30 and adapter.optimizer < 0.2 * 2**30


def test_the_command_tells_sizes_and_memory(capsys):
    main(["radfound-base", "--gpus", "4"])
    said = capsys.readouterr().out
    assert "radfound-base: 1.68 billion" in said and "28 x Qwen2DecoderLayer" in said
    assert "all weights learn" in said


def test_the_work_of_an_epoch_is_that_of_reading_joining_and_writing():
    parts = {"vision": 10, "connector": 2, "language": 100}
    work = partial(epoch_flops, parts, examples=3, frames=2, patches=4, tokens=5)
    assert work() == 3 * (2 * 10 * 8 + 8 * 2 * 8 + 8 * 100 * 5)
    assert work() - work(learning=0.01) == 3 * 2 * 100 * 5
