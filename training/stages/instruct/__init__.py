"""Instruction tuning: questions, captions and reports in one mixture.

The vision encoder is frozen and every study is encoded before the first step. The connector is trained, and
the language model too, by LoRA (arXiv 2106.09685) or in full. A question of an image of its own should be answered
better with it than with another of the same labels; otherwise a small language model learns the question by heart. Run as
`python -m training.stages.instruct --config training/stages/configs/instruct.yaml --data KIT --out DIR`.
"""

from training.stages.instruct.config import InstructConfig
from training.stages.instruct.stage import instruct

__all__ = ["InstructConfig", "instruct"]
