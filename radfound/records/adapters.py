"""The store of LoRA adapters: each is published once, never changed; one is active."""

from __future__ import annotations

import builtins
import json
import logging
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import filelock

from radfound.correction import utc_now
from radfound.exceptions import AdapterError, NotFoundError, RequestError, StorageError
from radfound.records.adapter_weights import CONFIG_FILE, WEIGHTS_FILE, check_weights
from radfound.records.durable import (
    TEMPORARY_PREFIX,
    make_directory,
    read_json,
    remove_temporary_files,
    replace_text,
    replace_with_copy,
    sha256_of,
    sync_directory,
)

MANIFEST = "manifest.json"
REQUIRED_FILES = (WEIGHTS_FILE, CONFIG_FILE)

_SCHEMA = "radfound.adapter/1"
_POINTER_SCHEMA = "radfound.adapters/1"
_RESERVED_KEYS = ("schema", "id", "files")
_ID = re.compile(r"a-(\d{4,9})")
_PRUNED = "pruned"  # a file beside the manifest of an adapter whose weights were removed
_IN_USE = "in-use"  # a lock in a scratch folder
_REFUSALS, _REFUSALS_KEPT = "refused.json", 50
_LOCK_TIMEOUT_S = 60.0
_LONGEST_HISTORY = 1000

logger = logging.getLogger(__name__)


def store_path(studies: str | Path, model: str | None = None) -> Path:
    """Return where the adapters of a folder of studies are kept.

    Parameters
    ----------
    studies : str or Path
    model : str or None
        Name of a served model; None for the server's default model.
    """
    state = Path(studies) / ".radfound"
    return state / "adapters" if model is None else state / "models" / model / "adapters"


@dataclass(frozen=True)
class AdapterInfo:
    """One published adapter.

    Parameters
    ----------
    id : str
    manifest : dict
        As given at publication, with "schema", "id", "created" and "files" (SHA-256 of each).
    active : bool
    """

    id: str
    manifest: dict[str, Any]
    active: bool


@dataclass(frozen=True)
class _Pointer:
    active: str | None = None
    history: tuple[str | None, ...] = ()  # previously active adapters, newest last
    newest: int = 0  # the highest number ever assigned, so that ids are unique

    def moved_to(self, adapter: str | None) -> _Pointer:
        if adapter == self.active:
            return self
        return replace(self, active=adapter, history=(*self.history, self.active))


class AdapterStore:
    """A folder of adapters, `a-0001` and so on, and a pointer to the active one.

    Publications and activations are atomic, even if the process is killed. Several threads and
    processes may use one folder. The first publication creates it.

    Parameters
    ----------
    root : str or Path
        See `store_path`.

    Raises
    ------
    StorageError
        From every method that writes, if the folder cannot be written.
    """

    def __init__(self, root: str | Path):
        self.root = Path(root)
        self._name = f"{self.root.parent.name}/{self.root.name}"
        self._pointer_path = self.root / "active.json"
        self._seen: tuple[tuple[int, int, int], str | None] | None = None
        self._remove_strays()

    def publish(
        self, folder: str | Path, manifest: dict[str, Any], *, activate: bool = True
    ) -> str:
        """Copy an adapter into the store under the next free id.

        Parameters
        ----------
        folder : str or Path
            Holds `adapter_model.safetensors` and `adapter_config.json`, as saved by peft; other
            files in the folder are copied too.
        manifest : dict
            Description as JSON: base model, metrics, data snapshot, ...
        activate : bool
            Whether to activate the adapter in the same step.

        Returns
        -------
        str
            The new id, such as "a-0001".

        Raises
        ------
        AdapterError
            If the folder does not hold a valid adapter (see `check_weights`), or the manifest is not JSON.
        """
        sources = _adapter_files(Path(folder))
        check_weights(Path(folder))
        for key in _RESERVED_KEYS:
            if key in manifest:
                raise AdapterError(f"manifest: {key!r} is written by the store; leave it out")
        with self._locked():
            self._sweep()
            staging = Path(tempfile.mkdtemp(prefix=TEMPORARY_PREFIX, dir=self.root))
            try:
                adapter = self._stage(staging, sources, manifest)
                staging.rename(self.root / adapter)
            except BaseException:
                shutil.rmtree(staging, ignore_errors=True)
                raise
            sync_directory(self.root)
            number = int(adapter.removeprefix("a-"))
            pointer = replace(self._pointer_to_change(), newest=number)
            self._write_pointer(pointer.moved_to(adapter) if activate else pointer)
        return adapter

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """Make a folder for an adapter that is not published yet, and remove it at the end.

        If the process is killed, the next start removes it.

        Yields
        ------
        Path
        """
        with ExitStack() as stack:
            with self._locked():
                folder = Path(tempfile.mkdtemp(prefix=TEMPORARY_PREFIX, dir=self.root))
                stack.callback(shutil.rmtree, folder, ignore_errors=True)
                stack.enter_context(filelock.FileLock(folder / _IN_USE))
            inside = folder / "adapter"
            inside.mkdir()
            yield inside

    def note_refusal(self, manifest: dict[str, Any]) -> None:
        """Record why an adapter was not published; only the newest records are kept.

        Parameters
        ----------
        manifest : dict
            As for `publish`, with the "reason".
        """
        with self._locked():
            noted = [*self.refusals(), {"created": utc_now(), **manifest}][-_REFUSALS_KEPT:]
            replace_text(self.root / _REFUSALS, json.dumps(noted, indent=2, allow_nan=False) + "\n")

    def to_json(self) -> dict[str, Any]:
        """Return the published adapters, the active one (None: the base model), and the refusals."""
        return {
            "active": self.active(),
            "adapters": [
                {"id": info.id, "active": info.active, "manifest": info.manifest}
                for info in self.list()
            ],
            "refused": self.refusals(),
        }

    def refusals(self) -> builtins.list[dict[str, Any]]:
        """Return the records of `note_refusal`, oldest first."""
        refused: builtins.list[dict[str, Any]]
        refused = read_json(self.root / _REFUSALS, list, "list of refused adapters")
        return refused

    def activate(self, adapter: str | None) -> None:
        """Make an adapter the active one; None means the base model without an adapter.

        Raises
        ------
        NotFoundError
            If there is no such adapter.
        AdapterError
            If its files differ from the published ones. The previous adapter stays active.
        """
        with self._locked():
            if adapter is not None:
                self.path(adapter)
            self._write_pointer(self._pointer_to_change().moved_to(adapter))

    def rollback(self) -> str | None:
        """Activate the previously active adapter and return its id (None: the base model).

        Raises
        ------
        RequestError
            If there is no previous adapter.
        """
        with self._locked():
            pointer = self._read_pointer()
            if not pointer.history:
                raise RequestError(
                    f"{self._name}: nothing was active before; activate an adapter or base"
                )
            former = pointer.history[-1]
            if former is not None:
                self.path(former)
            self._write_pointer(replace(pointer, active=former, history=pointer.history[:-1]))
        return former

    def prune(self, keep: int) -> builtins.list[str]:
        """Remove the weights of old adapters; their manifests stay, so that answers stay traceable.

        Parameters
        ----------
        keep : int
            Number of newest adapters to keep, besides the active one, its parent and the target
            of `rollback`.

        Returns
        -------
        list of str
            The ids of the removed adapters, oldest first.

        Raises
        ------
        RequestError
            If `keep` is less than 1.
        """
        if keep < 1:
            raise RequestError(f"keep: found {keep}; expected 1 or more adapters")
        with self._locked():
            pointer = self._read_pointer()
            infos = self.list()
            parents = {info.manifest.get("parent") for info in infos if info.active}
            kept = {info.id for info in infos[-keep:]} | parents | {*pointer.history[-1:]}
            removed = [info.id for info in infos if not info.active and info.id not in kept]
            # Update the history first: a rollback must never lead to removed weights, even after a kill.
            history = tuple(each for each in pointer.history if each not in removed)
            self._write_pointer(replace(pointer, history=history[-_LONGEST_HISTORY:]))
            for adapter in removed:
                replace_text(self.root / adapter / _PRUNED, utc_now() + "\n")
            for _, folder in self._folders():
                if _is_pruned(folder):  # includes those that a killed process only marked
                    for name in _manifest(folder)["files"]:
                        (folder / name).unlink(missing_ok=True)
        return removed

    def active(self) -> str | None:
        """Return the active adapter's id, or None for the base model; one `stat` if unchanged."""
        try:
            stat = self._pointer_path.stat()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._unusable(error) from error
        version = (stat.st_mtime_ns, stat.st_ino, stat.st_size)
        seen = self._seen
        if seen is None or seen[0] != version:
            seen = (version, self._read_pointer().active)
            self._seen = seen
        return seen[1]

    def former(self) -> builtins.list[str | None]:
        """Return the previously active adapters, newest first; AdapterError, StorageError if unreadable."""
        return [*reversed(self._read_pointer().history)]

    def list(self) -> builtins.list[AdapterInfo]:
        """Return the published adapters that can be activated, oldest first."""
        active = self.active()
        found = []
        for number, folder in self._folders():
            if _is_pruned(folder):
                continue
            try:
                found.append((number, AdapterInfo(folder.name, _manifest(folder), False)))
            except AdapterError as error:
                logger.warning("ignored: %s", error)
        found.sort(key=lambda item: item[0])
        return [AdapterInfo(info.id, info.manifest, info.id == active) for _, info in found]

    def manifest(self, adapter: str) -> dict[str, Any]:
        """Return the manifest of a published adapter; NotFoundError if unknown."""
        folder = self.root / str(adapter)
        if not _ID.fullmatch(str(adapter)) or not folder.is_dir():
            raise NotFoundError(f"no adapter {adapter!r} in {self._name}; see the list of adapters")
        return _manifest(folder)

    def path(self, adapter: str) -> Path:
        """Return an adapter's folder after checking each file against its hash.

        Raises
        ------
        NotFoundError
            If there is no such adapter.
        AdapterError
            If a file is missing or differs from the published one.
        """
        files = self.manifest(adapter)["files"]
        folder = self.root / adapter
        if _is_pruned(folder):
            raise NotFoundError(f"{adapter}: its weights were pruned; see the list of adapters")
        for name, expected in files.items():
            try:
                found = sha256_of(folder / name)
            except OSError as error:
                raise AdapterError(
                    f"{adapter}/{name}: cannot be read ({error.strerror})"
                ) from error
            if found != expected:
                raise AdapterError(
                    f"{adapter}/{name}: its SHA-256 is {found[:12]}…, {expected[:12]}… was "
                    "published; activate another adapter or restore the file"
                )
        return folder

    # The methods below need the lock, unless they say otherwise.

    def _stage(self, staging: Path, sources: Sequence[Path], manifest: dict[str, Any]) -> str:
        """Copy the files and the manifest into the staging folder, and return the new id."""
        numbers = [number for number, _ in self._folders()]
        adapter = f"a-{max(numbers + [self._pointer_to_change().newest]) + 1:04d}"
        files = {}
        for source in sources:
            copy = staging / source.name
            replace_with_copy(copy, source)
            files[source.name] = sha256_of(copy)
        whole = {
            "schema": _SCHEMA,
            "id": adapter,
            "created": utc_now(),
            **manifest,
            "files": files,
        }
        try:
            text = json.dumps(whole, indent=2, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise AdapterError(f"manifest: not JSON ({error})") from error
        replace_text(staging / MANIFEST, text + "\n")
        return adapter

    def _pointer_to_change(self) -> _Pointer:
        try:
            return self._read_pointer()
        except AdapterError as error:
            logger.warning("the history of activations is reset: %s", error)
            return _Pointer()

    def _read_pointer(self) -> _Pointer:
        """Read the pointer; needs no lock, since it is replaced in one step."""
        try:
            text = self._pointer_path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return _Pointer()
        except OSError as error:
            raise self._unusable(error) from error
        except UnicodeDecodeError:
            text = ""
        pointer = _parse_pointer(text)
        if pointer is None:
            raise AdapterError(
                f"{self._name}/{self._pointer_path.name}: damaged; activate an adapter or base "
                "to replace it"
            )
        return pointer

    def _write_pointer(self, pointer: _Pointer) -> None:
        content = {
            "schema": _POINTER_SCHEMA,
            "active": pointer.active,
            "history": pointer.history,
            "newest": pointer.newest,
        }
        replace_text(self._pointer_path, json.dumps(content) + "\n")

    def _folders(self) -> Iterator[tuple[int, Path]]:
        """Yield number and path of each adapter folder, in any order; needs no lock."""
        if not self.root.exists():
            return
        try:
            for folder in self.root.iterdir():
                name = _ID.fullmatch(folder.name)
                if name and folder.is_dir():
                    yield int(name[1]), folder
        except OSError as error:
            raise self._unusable(error) from error

    @contextmanager
    def _locked(self, timeout_s: float = _LOCK_TIMEOUT_S) -> Iterator[None]:
        """Hold the store's lock; the system releases it if the process dies."""
        try:
            make_directory(self.root)
            with filelock.FileLock(self.root / ".lock", timeout=timeout_s):
                yield
        except filelock.Timeout as error:
            raise StorageError(
                f"{self._name}: another process has been writing for {timeout_s:.0f} s; try again"
            ) from error
        except OSError as error:
            raise self._unusable(error) from error

    def _remove_strays(self) -> None:
        """Remove partial folders left by killed processes, unless the store is locked."""
        try:
            if any(self._strays()):
                with self._locked(timeout_s=0):
                    self._sweep()
        except StorageError as error:
            logger.info("temporary folders were not removed: %s", error)

    def _sweep(self) -> None:
        remove_temporary_files(self.root)
        for stray in self._strays():
            if not _is_in_use(stray):
                shutil.rmtree(stray, ignore_errors=True)

    def _strays(self) -> Sequence[Path]:
        return tuple(self.root.glob(f"{TEMPORARY_PREFIX}*"))

    def _unusable(self, error: OSError) -> StorageError:
        return StorageError(
            f"{self._name}: the adapter store cannot be used ({error.strerror or error}); check "
            "that the folder can be written by this user and that the disk is not full"
        )


def _adapter_files(folder: Path) -> list[Path]:
    """Return the files of an adapter saved by peft."""
    for name in REQUIRED_FILES:
        file = folder / name
        if not file.is_file() or file.stat().st_size == 0:
            raise AdapterError(f"{folder.name}/{name}: missing or empty; save the adapter by peft")
    entries = [entry for entry in sorted(folder.iterdir()) if entry.name != MANIFEST]
    for entry in entries:
        if entry.is_symlink() or not entry.is_file():
            raise AdapterError(
                f"{folder.name}/{entry.name}: found a folder or link; expected files"
            )
    return entries


def _is_in_use(scratch: Path) -> bool:
    """Whether the process that made a scratch folder is alive."""
    lock = scratch / _IN_USE
    if not lock.exists():
        return False
    try:
        with filelock.FileLock(lock, timeout=0):
            return False
    except filelock.Timeout:
        return True


def _is_pruned(folder: Path) -> bool:
    return (folder / _PRUNED).exists()


def _manifest(folder: Path) -> dict[str, Any]:
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        files = manifest["files"]
        whole = manifest["id"] == folder.name and all(files[name] for name in REQUIRED_FILES)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise AdapterError(f"{folder.name}/{MANIFEST}: missing or damaged") from error
    if not whole or not all(Path(name).name == name for name in files):
        raise AdapterError(f"{folder.name}/{MANIFEST}: not the manifest of this adapter")
    return manifest


def _parse_pointer(text: str) -> _Pointer | None:
    try:
        content = json.loads(text)
        if content["schema"] != _POINTER_SCHEMA:
            return None
        ids = [content["active"], *content["history"]]
        newest = int(content["newest"])
    except (ValueError, KeyError, TypeError):
        return None
    if not all(each is None or (isinstance(each, str) and _ID.fullmatch(each)) for each in ids):
        return None
    return _Pointer(ids[0], tuple(ids[1:]), newest)
