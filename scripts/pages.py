"""Find and run the fenced blocks of README and docs/*.md; needs only the standard library.

A block runs unchanged, with bash or Python, unless marked by a comment on the line above:

    <!-- with --help -->         each command gets this option, since the command takes long
    <!-- with --dry-run -->
    <!-- save as NAME -->        saved under this name, for later blocks
    <!-- serves PORT -->         runs in the background until the page ends; ready once the port answers
    <!-- shown: REASON -->       not run

A `text` block is output and is not run. `pip install '.[EXTRA]'` makes the environment for the rest of its
page; scripts/extras.py runs it.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RUN, SAVED, SHOWN, INSTALLS = "run", "saved", "shown", "installs"
BLOCK_S, INSTALL_S = 600, 3600
_BLOCK = re.compile(r"(?:^<!-- ([^\n]+?) -->\n)?^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_OPTION = re.compile(r"with (--[a-z-]+)")
_SAVE, _SERVE = re.compile(r"save as (\S+)"), re.compile(r"serves (\d+)")
_EXTRA = re.compile(r"pip install '\.\[([a-z-]+)\]'")


class BlockError(Exception):
    """A block fails or has an unknown mark."""


@dataclass(frozen=True)
class Block:
    """A fenced block of a page.

    Parameters
    ----------
    place : str
        Page and line, such as README.md:23.
    language, text : str
    mark : str
        Text of the comment above; empty if there is none.
    extra : str
        This package's extra that the page installs before the block; empty for none.
    """

    place: str
    language: str
    text: str
    mark: str
    extra: str

    @property
    def kind(self) -> str:
        """Handling of the block: `RUN`, `SAVED`, `SHOWN` or `INSTALLS`."""
        if _SAVE.fullmatch(self.mark):
            return SAVED
        if self.language == "text" or re.match(r"shown: \w", self.mark):
            return SHOWN
        if self.language == "sh" and self.text.startswith("pip install "):
            return INSTALLS
        is_known = not self.mark or _OPTION.fullmatch(self.mark) or _SERVE.fullmatch(self.mark)
        if is_known and self.language in ("sh", "python"):
            return RUN
        raise BlockError(
            f"{self.place}: found a {self.language or 'bare'} block marked {self.mark!r}; mark it as "
            "scripts/pages.py says"
        )

    @property
    def port(self) -> int | None:
        """Port that the block serves, if any."""
        found = _SERVE.fullmatch(self.mark)
        return int(found[1]) if found else None

    def commands(self) -> str:
        """Return the block's commands, with the option of its mark."""
        option = _OPTION.fullmatch(self.mark)
        if not option:
            return self.text
        lines = self.text.replace("\\\n", " ").splitlines()
        commands = [shlex.split(line, comments=True) for line in lines]
        return "\n".join(shlex.join([*command, option[1]]) for command in commands if command)


def pages(root: Path = ROOT) -> list[Path]:
    """Return README and the pages of docs."""
    return [root / "README.md", *sorted((root / "docs").glob("*.md"))]


def blocks(page: Path) -> list[Block]:
    """Return the blocks of a page."""
    text, extra = page.read_text(encoding="utf-8"), ""
    found = []
    for match in _BLOCK.finditer(text):
        mark, language, inside = match[1] or "", match[2], match[3]
        named = _EXTRA.search(inside)
        extra = named[1] if named else extra
        line = text.count("\n", 0, match.start(2)) + 1
        name = page.relative_to(page.parents[1] if page.parent.name == "docs" else page.parent)
        found.append(Block(f"{name}:{line}", language, inside, mark, extra))
    return found


class Reader:
    """Runs the blocks of pages, as a user who follows them.

    Parameters
    ----------
    folder : Path
        The checkout, where commands run.
    programs : Path
        The `bin` folder of the environment.
    variables : mapping
        Environment variables.
    ports : mapping of int to int
        Maps a port in the pages to the port of a running server.
    """

    def __init__(
        self,
        folder: Path,
        programs: Path,
        variables: Mapping[str, str],
        ports: Mapping[int, int] | None = None,
    ):
        self._folder = folder
        path = f"{programs}{os.pathsep}{variables.get('PATH', os.defpath)}"
        self._variables = {**variables, "PATH": path}
        self._ports = dict(ports or {})

    def save(self, page: Path) -> None:
        """Save the blocks that a page marks with `save as`."""
        for block in blocks(page):
            if name := _SAVE.fullmatch(block.mark):
                (self._folder / name[1]).write_text(block.text, encoding="utf-8")

    def follow(self, page: Path, extra: str = "", installing: bool = False) -> Iterator[Block]:
        """Run the blocks of a page that need an extra (or none), one by one; yield each one.

        Parameters
        ----------
        page : Path
        extra : str
        installing : bool
            Whether to run the blocks that install packages, too.

        Raises
        ------
        BlockError
            If a block fails; the message holds the end of its output.
        """
        wanted = (RUN, INSTALLS) if installing else (RUN,)
        with ExitStack() as servers:
            for block in blocks(page):
                if block.kind not in wanted or block.extra != extra:
                    continue
                if block.port is None:
                    self._run(block)
                elif block.port not in self._ports:
                    servers.enter_context(self._serving(block))
                yield block

    def _command(self, block: Block) -> list[str]:
        text = block.commands()
        for port, served in self._ports.items():
            text = text.replace(f"127.0.0.1:{port}", f"127.0.0.1:{served}")
        if block.language == "python":
            return ["python", "-c", text]
        return ["bash", "-euo", "pipefail", "-c", text]

    def _start(self, block: Block, output: int) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            self._command(block),
            cwd=self._folder,
            env=self._variables,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def _run(self, block: Block) -> None:
        limit_s = INSTALL_S if block.kind == INSTALLS else BLOCK_S
        process = self._start(block, subprocess.PIPE)
        try:
            output, _ = process.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired as error:
            raise BlockError(f"{block.place}: not done within {limit_s} s") from error
        finally:
            stop(process)
        if process.returncode:
            raise BlockError(f"{block.place}: exit status {process.returncode}\n{_end(output)}")

    @contextmanager
    def _serving(self, block: Block) -> Iterator[None]:
        port, process = block.port, self._start(block, subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + BLOCK_S
            while not _answers(port):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise BlockError(f"{block.place}: nothing answers on port {port}")
                time.sleep(0.2)
            yield
        finally:
            stop(process)


def stop(process: subprocess.Popen[bytes], patience_s: float = 30) -> None:
    """Terminate a process and its group, if it still runs; kill the rest after `patience_s`."""
    for sign in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, sign)
            process.wait(patience_s)
        except ProcessLookupError:
            break
        except subprocess.TimeoutExpired:
            continue
    process.wait()


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _end(output: bytes) -> str:
    return "\n".join(output.decode("utf-8", "replace").splitlines()[-12:])
