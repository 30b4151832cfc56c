"""Speed of fine-tuning on corrections compared with plain peft and `transformers.Trainer`.

Run as `python -m training.experiments.speed --data KIT`. The plain side loads and encodes a batch's studies at every
step and runs the whole model; ours encodes each study once and runs only the trained layers. Both train on the same
answers, with the same batch size and the same LoRA on the same layers, alternating, each in a process of its own.
Both are evaluated by cross-entropy on other questions.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset
from transformers import Trainer, TrainerCallback, TrainingArguments

from radfound.commands import run_command
from radfound.datasets import Kit
from radfound.datasets.example import Example
from radfound.engine.local.model import LocalModel
from radfound.study.study import Study
from training.corrections.finetune import FinetuneConfig
from training.corrections.frozen.base import FrozenBase
from training.corrections.frozen.lessons import Lesson
from training.corrections.frozen.scoring import autocast
from training.corrections.frozen.upper_layers import CachedAnswer, UpperLayers
from training.loop.config import Draw, LoopConfig
from training.loop.optimise import optimise
from training.packing import branch

KINDS = ("single images", "3D volumes")
SIDES = ("plain", "ours", "ours, with replay")
_IGNORED = -100  # label of tokens without loss
_WARMUP_STEPS = 5


@dataclass(frozen=True)
class Settings:
    """Settings of both sides.

    Parameters
    ----------
    model : str
    layers, rank : int
        Number of trained upper layers, and the rank of their LoRA.
    epochs, batch_size : int
    learning_rate : float
    seed : int
    """

    model: str = "radfound-mini"
    layers: int = FinetuneConfig.layers
    rank: int = FinetuneConfig.rank
    epochs: int = 3
    batch_size: int = 8
    learning_rate: float = FinetuneConfig.learning_rate
    seed: int = 0


@dataclass(frozen=True)
class Case:
    """A corrected answer: the study, the question and the correct answer."""

    example: Example
    question: str
    answer: str


class Seconds(NamedTuple):
    """Clock time and processor time; a busy machine does not distort the latter."""

    clock: float
    processor: float

    @classmethod
    def now(cls) -> Seconds:
        """Return the current clock and processor time."""
        return cls(time.monotonic(), time.process_time())

    def since(self, parts: int = 1) -> Seconds:
        """Return the elapsed time, divided by `parts`."""
        now = Seconds.now()
        return Seconds((now.clock - self.clock) / parts, (now.processor - self.processor) / parts)


@dataclass(frozen=True)
class Outcome:
    """Time, memory and loss of one side.

    Parameters
    ----------
    once_s, epoch_s : Seconds
        One-off preparation before the first step, and one epoch.
    peak_mib : float
        Peak memory of the whole process, including libraries and the model.
    loss_before, loss_after : float
        Mean cross-entropy of the tokens of held-out answers.
    """

    once_s: Seconds
    epoch_s: Seconds
    peak_mib: float
    loss_before: float
    loss_after: float


def image_cases(kit: Kit, count: int, seed: int) -> tuple[list[Case], list[Case]]:
    """Return questions about VQA-RAD's images for training, and as many others for evaluation."""
    found = [
        Case(example, turn.questions[0], turn.answer)
        for split in ("validation", "test")
        for example in kit.vqa(split)
        if example.source == "VQA-RAD"
        for turn in example.turns
    ]
    chosen = random.Random(seed).sample(found, 2 * count)
    return chosen[:count], chosen[count:]


def volume_cases(kit: Kit, count: int, seed: int) -> tuple[list[Case], list[Case]]:
    """Return questions about whole volumes for training, and other wordings of them for evaluation."""
    learnt, held = [], []
    for example in kit.volumes(slices_per_plane=1):
        if example.region is not None:
            continue
        for turn in example.turns:
            if turn.task == "vqa":
                learnt.append(Case(example, turn.questions[0], turn.answer))
                held.append(Case(example, turn.questions[1], turn.answer))
            else:
                learnt.append(Case(example, "What is shown?", turn.answer))
                held.append(Case(example, "Describe this volume.", turn.answer))
        is_mri = example.labels["modality"] == "MRI"
        learnt.append(Case(example, "Is this an MRI?", "Yes" if is_mri else "No"))
        held.append(Case(example, "Is this a CT scan?", "No" if is_mri else "Yes"))
    return random.Random(seed).sample(learnt, min(count, len(learnt))), held


class CorrectedStudies(Dataset):
    """Cases with their studies, loaded from file at every access."""

    def __init__(self, cases: Sequence[Case]):
        self._cases = cases

    def __len__(self) -> int:
        return len(self._cases)

    def __getitem__(self, index: int) -> tuple[Study, Case]:
        case = self._cases[index]
        return case.example.read(), case


class Collator:
    """Collates studies and cases to the model's inputs and labels, padded on the right."""

    def __init__(self, processor: Any):
        self._processor = processor

    def __call__(self, batch: Sequence[tuple[Study, Case]]) -> dict[str, torch.Tensor]:
        """Return the inputs of `RadFoundForConditionalGeneration`."""
        inputs = self._processor.image_processor.preprocess([study for study, _ in batch])
        return dict(inputs) | self.texts([case for _, case in batch])

    def texts(self, cases: Sequence[Case]) -> dict[str, torch.Tensor]:
        """Return the model's inputs without the studies."""
        ids, labels = [], []
        for case in cases:
            before, after = self._processor.prompt_ids("vqa", case.question)
            prompt = [*before, *after]
            answer = self._processor.answer_ids(case.answer)
            ids.append(torch.tensor(prompt + answer))
            labels.append(torch.tensor([_IGNORED] * len(prompt) + answer))
        padding = self._processor.tokenizer.pad_token_id
        lengths = torch.tensor([len(each) for each in ids])[:, None]
        return {
            "input_ids": pad_sequence(ids, batch_first=True, padding_value=padding),
            "attention_mask": (torch.arange(int(lengths.max())) < lengths).long(),
            "labels": pad_sequence(labels, batch_first=True, padding_value=_IGNORED),
        }


class _Watch(TrainerCallback):
    """Measures the time from Trainer's first step to its last."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._began = Seconds.now()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.epoch_s = self._began.since(args.num_train_epochs)


def learn_plainly(learnt: Sequence[Case], held: Sequence[Case], settings: Settings) -> Outcome:
    """Train as in the documentation of peft and Trainer; the frozen encoder runs at every step."""
    frozen = FrozenBase(settings.model, settings.layers, dtype=torch.bfloat16)
    model, collate = frozen.base.model, Collator(frozen.base.processor)
    model.language_model.set_attn_implementation("sdpa")  # transformers' default
    frozen.new_adapter(settings.rank)
    encoded: dict[str, torch.Tensor] = {}
    before = _plain_loss(frozen.base, held, collate, encoded, settings.batch_size)
    watch = _Watch()
    with tempfile.TemporaryDirectory() as folder:
        Trainer(
            model=model,
            args=TrainingArguments(
                folder,
                num_train_epochs=settings.epochs,
                per_device_train_batch_size=settings.batch_size,
                learning_rate=settings.learning_rate,
                lr_scheduler_type="cosine",
                warmup_steps=_WARMUP_STEPS,
                seed=settings.seed,
                bf16=True,
                use_cpu=model.device.type == "cpu",
                remove_unused_columns=False,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
            ),
            train_dataset=CorrectedStudies(learnt),
            data_collator=collate,
            callbacks=[watch],
        ).train()
    peak = _peak_mib()
    after = _plain_loss(frozen.base, held, collate, encoded, settings.batch_size)
    return Outcome(Seconds(0.0, 0.0), watch.epoch_s, peak, before, after)


@torch.no_grad()
def _plain_loss(
    base: LocalModel, cases: Sequence[Case], collate: Collator,
    encoded: dict[str, torch.Tensor], batch_size: int,
) -> float:  # fmt: skip
    """Return the loss of the whole model; encodings are cached, since the encoder is frozen."""
    model, total, count = base.model.eval(), 0.0, 0
    for start in range(0, len(cases), batch_size):
        chunk = cases[start : start + batch_size]
        batch = {name: value.to(model.device) for name, value in collate.texts(chunk).items()}
        visual = torch.cat([_encoded(base, case, encoded) for case in chunk])
        tokens = int((batch["labels"] != _IGNORED).sum())
        with torch.autocast(model.device.type, torch.bfloat16):
            total += float(model(**batch, visual_embeds=visual).loss) * tokens
        count += tokens
    return total / count


class _Answers(nn.Module):
    """Objective: cross-entropy of each batch's answers, and KL to the teacher on as many replayed ones."""

    def __init__(
        self, base: LocalModel, upper: UpperLayers, learnt: Sequence[CachedAnswer],
        replay: Sequence[CachedAnswer], settings: Settings,
    ):  # fmt: skip
        super().__init__()
        self.model, self._upper = base.model, upper
        size, chance = settings.batch_size, random.Random(settings.seed)
        self.batches: list[tuple[list[CachedAnswer], list[CachedAnswer]]] = []
        for _ in range(settings.epochs):
            order = chance.sample(learnt, len(learnt))
            for start in range(0, len(order), size):
                batch = order[start : start + size]
                replayed = chance.sample(replay, len(batch)) if replay else []
                self.batches.append((batch, replayed))

    def forward(self, draw: Draw) -> tuple[torch.Tensor, dict[str, float]]:
        """Return the loss of a step."""
        learnt, replay = self.batches[draw.step]
        run = self._upper.forward([*learnt, *replay])
        count = sum(run.lengths[: len(learnt)])
        loss = F.cross_entropy(run.logits[:count], run.targets[:count])
        if replay:
            with torch.no_grad():
                teacher = self._upper.head(
                    torch.cat([each.teacher_hidden for each in replay])
                ).float()
            loss = loss + F.kl_div(
                run.logits[count:].log_softmax(-1),
                teacher.log_softmax(-1),
                reduction="batchmean",
                log_target=True,
            )
        return loss, {}


def learn_ours(
    learnt: Sequence[Case], held: Sequence[Case], settings: Settings, replay: bool = False
) -> Outcome:
    """Train as `training.corrections.finetune` does: encoder and lower layers once, then the upper layers."""
    frozen = FrozenBase(settings.model, settings.layers, FinetuneConfig.replay_studies)
    began = Seconds.now()
    encoded: dict[str, torch.Tensor] = {}
    cached = frozen.activations.of(_lessons(frozen.base, learnt, encoded))
    bundled = frozen.activations.of(frozen.replay) if replay else []
    once = began.since()
    held_answers = frozen.activations.of(_lessons(frozen.base, held, encoded))
    frozen.new_adapter(settings.rank)
    before = _our_loss(frozen.upper, held_answers, settings.batch_size)
    objective = _Answers(frozen.base, frozen.upper, cached, bundled, settings)
    adapter = [p for p in frozen.base.model.parameters() if p.requires_grad]
    loop = LoopConfig(
        len(objective.batches),
        settings.learning_rate,
        settings.batch_size,
        warmup_steps=_WARMUP_STEPS,
        weight_decay=0.0,
        seed=settings.seed,
        precision="bf16" if frozen.base.model.dtype == torch.bfloat16 else "fp32",
    )
    began = Seconds.now()
    optimise(objective, {1.0: adapter}, loop)
    epoch_s = began.since(settings.epochs)
    peak = _peak_mib()
    after = _our_loss(frozen.upper, held_answers, settings.batch_size)
    return Outcome(once, epoch_s, peak, before, after)


def _lessons(
    base: LocalModel, cases: Sequence[Case], encoded: dict[str, torch.Tensor]
) -> list[Lesson]:
    """Return one lesson for each study; encodings are cached in `encoded`."""
    by_study: dict[str, list[Case]] = {}
    for case in cases:
        by_study.setdefault(_image(case), []).append(case)
    return [
        Lesson(
            _encoded(base, group[0], encoded),
            [branch(base.processor, "vqa", case.question, case.answer, None) for case in group],
        )
        for group in by_study.values()
    ]


def _image(case: Case) -> str:
    return str(case.example.files[0])


def _encoded(base: LocalModel, case: Case, encoded: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return the visual tokens of a case's study, encoding each study once."""
    if _image(case) not in encoded:
        encoded[_image(case)] = base.encode(case.example.read())
    return encoded[_image(case)]


@torch.no_grad()
def _our_loss(upper: UpperLayers, cached: Sequence[CachedAnswer], batch_size: int) -> float:
    total, count = 0.0, 0
    for start in range(0, len(cached), batch_size):
        batch = cached[start : start + batch_size]
        with autocast(batch[0].hidden):
            run = upper.forward(batch)
        total += float(F.cross_entropy(run.logits, run.targets, reduction="sum"))
        count += len(run.targets)
    return total / count


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def measure(side: str, kind: str, kit: Kit, count: int, settings: Settings) -> Outcome:
    """Train one side on one kind of study, in this process."""
    cases = image_cases if kind == KINDS[0] else volume_cases
    learnt, held = cases(kit, count, settings.seed)
    if side == "plain":
        return learn_plainly(learnt, held, settings)
    return learn_ours(learnt, held, settings, replay=side != "ours")


def _measure_apart(side: str, kind: str, args: argparse.Namespace) -> Outcome:
    """Run `measure` in a process of its own, so that peak memory belongs to one side."""
    options = {name: value for name, value in vars(args).items() if name not in ("side", "kinds")}
    arguments = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "training.experiments.speed", *arguments, "--kinds", kind]
    threads = {"OMP_NUM_THREADS": str(args.threads)}
    done = subprocess.run(
        [*command, "--side", side], stdout=subprocess.PIPE, env=os.environ | threads, check=True
    )
    row = json.loads(done.stdout.splitlines()[-1])
    return Outcome(**row | {name: Seconds(*row[name]) for name in ("once_s", "epoch_s")})


def table(found: dict[tuple[str, str], list[Outcome]], epochs: int) -> str:
    """Return the Markdown table: medians over the rounds, and ratios within the same round."""
    lines = [
        "| studies | side | once, s | epoch, s | an epoch is faster | by processor time "
        f"| {epochs} epochs with what is done once | by processor time | peak MiB | held-out loss |",
        "| --- " * 10 + "|",
    ]
    for (kind, side), outcomes in found.items():
        pairs = list(zip(found[kind, SIDES[0]], outcomes, strict=True))
        once, epoch, peak, before, after = (
            statistics.median(values)
            for values in zip(
                *(
                    (o.once_s.clock, o.epoch_s.clock, o.peak_mib, o.loss_before, o.loss_after)
                    for o in outcomes
                ),
                strict=True,
            )
        )
        faster = [
            statistics.median(
                _whole_s(plain, of, amount) / _whole_s(own, of, amount) for plain, own in pairs
            )
            for amount in (None, epochs)
            for of in (0, 1)
        ]
        ratios = " | ".join(f"{ratio:.1f} ×" for ratio in faster)
        lines.append(
            f"| {kind} | {side} | {once:.1f} | {epoch:.1f} | {ratios} "
            f"| {peak:.0f} | {before:.3f} → {after:.3f} |"
        )
    return "\n".join(lines)


def _whole_s(outcome: Outcome, of: int, epochs: int | None) -> float:
    """Return clock (0) or processor (1) time of one epoch, or of a run of `epochs`."""
    if epochs is None:
        return outcome.epoch_s[of]
    return outcome.once_s[of] + epochs * outcome.epoch_s[of]


def main(argv: Sequence[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--corrections", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=1, help="runs of every side")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--side", choices=SIDES, help="measure this side here and print JSON")
    for name, value in asdict(Settings()).items():
        parser.add_argument(f"--{name}", type=type(value), default=value)
    args = parser.parse_args(argv)
    if args.side:
        torch.set_num_threads(args.threads)
        settings = Settings(**{name: getattr(args, name) for name in asdict(Settings())})
        outcome = measure(args.side, args.kinds[0], Kit(args.data), args.corrections, settings)
        print(json.dumps(asdict(outcome)))
        return
    found: dict[tuple[str, str], list[Outcome]] = {}
    for _ in range(args.rounds):
        for kind in args.kinds:
            for side in SIDES:
                outcome = _measure_apart(side, kind, args)
                found.setdefault((kind, side), []).append(outcome)
                print(f"{kind}, {side}: {outcome.epoch_s.clock:.1f} s an epoch", file=sys.stderr)
    print(table(found, args.epochs))


if __name__ == "__main__":
    run_command(main)
