"""The command line: ask about files, audit corrections, choose adapters, run benchmark and reader studies.

Results go to stdout, everything else to stderr. Heavy imports wait until a command needs them, so that
`--help` is fast.
"""

from radfound.cli.command import main

__all__ = ["main"]
