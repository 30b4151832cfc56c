"""Command line."""

from training.stages import instruct
from training.stages.config import run_stage

if __name__ == "__main__":
    run_stage("instruct", instruct.InstructConfig, instruct.instruct, instruct.__doc__)
