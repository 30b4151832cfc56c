"""Adapters of a model behind a server: vLLM loads them by name, llama.cpp has those it was started with.

Each request names its adapter. llama.cpp reuses its prompt cache across adapters unless a request states the
scale of every one (https://github.com/ggml-org/llama.cpp/issues/26207), so every request does, also for the base
model.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, nullcontext, suppress
from pathlib import Path, PurePosixPath
from typing import Any

import openai

from radfound.engine.openai.connection import Connection
from radfound.engine.openai.failures import Asked, explain
from radfound.engine.openai.server import Server
from radfound.engine.openai.turns import Turns
from radfound.exceptions import AdapterError, ModelServerError, RadFoundError, UnsupportedError
from radfound.records.adapter_weights import WEIGHTS_FILE, check_weights
from radfound.records.durable import sha256_of

_PROBE = "Name one organ of the chest."
_LEAST_CHANGE = 1e-3  # of a log-probability


class Adapters:
    """Adapters that requests may name.

    Parameters
    ----------
    connection : Connection
    server : Server
    host : str
    folder : str or None
        The folder of adapters as the server sees it, if it mounts it elsewhere.
    """

    def __init__(self, connection: Connection, server: Server, host: str, folder: str | None):
        self._connection, self._server = connection, server
        self._asked = Asked(host, server.model)
        self._folder = folder
        self._names: dict[str, str] = {}  # adapter id: name at the server
        self._turns = Turns()
        self._lock = threading.Lock()

    def fields(self, adapter: str | None) -> dict[str, Any]:
        """Return the fields of a request that name its adapter.

        Raises
        ------
        AdapterError
            If the adapter was not made available.
        """
        if adapter is not None and adapter not in self._names:
            raise AdapterError(
                f"adapter {adapter}: the model server does not have it; load it first"
            )
        name = self._names.get(adapter or "")
        if self._server.adapters:
            return {"model": self._server.model, "lora": _scales(self._server.adapters, name)}
        return {"model": name or self._server.model}

    def turn(self, adapter: str | None) -> AbstractAsyncContextManager[None]:
        """Return a context in which requests of an adapter may run, apart from those of others."""
        return self._turns.of(adapter) if self._server.loads_adapters else nullcontext()

    def use(self, adapter: str, folder: Path) -> None:
        """Make an adapter available, and check that it changes the log-probabilities of a fixed prompt."""
        with self._lock:
            if adapter in self._names:
                return
            if self._server.loads_adapters:
                name = _name(adapter, folder)
                self._connection.call(self._load(name, folder))
            elif adapter in self._server.adapters:
                name = adapter
            else:
                raise self._why_not(adapter)
            self._names[adapter] = name
        try:
            self._check_effect(adapter)
        except BaseException:
            self.drop(adapter)
            raise

    def drop(self, adapter: str) -> None:
        """Forget an adapter, and unload it where it was loaded."""
        with self._lock:
            name = self._names.pop(adapter, None)
        if name is not None and self._server.loads_adapters:
            self._connection.call(self._unload(name))

    def _why_not(self, adapter: str) -> RadFoundError:
        if self._server.kind == "vLLM":
            return UnsupportedError(
                f"adapter {adapter}: vLLM loads no adapters as it runs now; start it with --enable-lora and "
                "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True"
            )
        if self._server.kind != "llama.cpp":
            return UnsupportedError(
                f"adapter {adapter}: this model server takes no adapters; expected vLLM or llama.cpp"
            )
        kind = AdapterError if self._server.adapters else UnsupportedError
        return kind(
            f"adapter {adapter}: llama.cpp loads adapters at its start only; convert it by "
            f"convert_lora_to_gguf.py and start the server with --lora {adapter}.gguf"
        )

    async def _load(self, name: str, folder: Path) -> None:
        path = str(PurePosixPath(self._folder) / folder.name) if self._folder else str(folder)
        try:
            await self._connection.post(
                "/load_lora_adapter", {"lora_name": name, "lora_path": path}
            )
        except openai.APIStatusError as error:
            # The name holds the hash of the weights, so one that is loaded already is the same.
            if error.status_code == 400 and "already" in str(error.body):
                return
            if error.status_code in (400, 404, 422):
                raise AdapterError(
                    f"adapter {folder.name}: the model server cannot load it (status {error.status_code}); "
                    "it must see the same folder (`adapters` in the settings of the models), and its "
                    "--max-lora-rank must cover the adapter's rank"
                ) from None
            raise explain(error, self._asked) from None
        except Exception as error:
            raise explain(error, self._asked) from None

    async def _unload(self, name: str) -> None:
        with suppress(openai.APIError):  # unloaded already, or the server is gone
            await self._connection.post("/unload_lora_adapter", {"lora_name": name})

    def _check_effect(self, adapter: str) -> None:
        if not self._server.top:
            raise AdapterError(
                f"adapter {adapter}: the model server gives no log-probabilities, so it cannot be checked that "
                "the adapter is applied"
            )
        base = self._connection.call(self._probe(None))
        adapted = self._connection.call(self._probe(adapter))
        again = self._connection.call(self._probe(None))
        noise = _largest_change(base, again)
        if _largest_change(base, adapted) <= max(_LEAST_CHANGE, 2 * noise):
            raise AdapterError(
                f"adapter {adapter}: does not change the model's log-probabilities, though the server has it; "
                "it holds no trained weights of the language model, or is of another base model"
            )

    async def _probe(self, adapter: str | None) -> dict[str, float]:
        body = {
            "messages": [{"role": "user", "content": _PROBE}],
            "max_tokens": 1,
            "temperature": 0,
            "logprobs": True,
            "top_logprobs": self._server.top,
            **self.fields(adapter),
        }
        if self._server.kind == "llama.cpp":
            # A prompt that is in the cache in part is computed in other pieces, which rounds otherwise.
            body["cache_prompt"] = False
        try:
            async with self.turn(adapter):
                reply = await self._connection.chat(body)
        except Exception as error:
            raise explain(error, self._asked) from None
        entries = (reply["choices"][0].get("logprobs") or {}).get("content") or []
        if not entries:
            raise ModelServerError(
                f"{self._asked.host}: no log-probabilities in the reply; expected them as at its start"
            )
        return {each["token"]: float(each["logprob"]) for each in entries[0]["top_logprobs"]}


def _largest_change(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    """Return the largest difference of log-probabilities; infinite if the likely tokens are others."""
    both = one.keys() & other.keys()
    if not both:
        return float("inf")
    return max(abs(one[token] - other[token]) for token in both)


def _scales(adapters: Mapping[str, int], name: str | None) -> list[dict[str, Any]]:
    return [
        {"id": number, "scale": 1.0 if each == name else 0.0} for each, number in adapters.items()
    ]


def _name(adapter: str, folder: Path) -> str:
    """Return the adapter's name at the server: one for these weights, whoever else loads adapters there."""
    check_weights(folder)
    return f"radfound-{adapter}-{sha256_of(folder / WEIGHTS_FILE)[:12]}"
