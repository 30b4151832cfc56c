"""What a server can do, asked once when its backend is made."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import PurePath
from typing import Any, Literal

import numpy as np
import openai

from radfound.engine.openai.address import Address
from radfound.engine.openai.connection import Connection
from radfound.engine.openai.failures import Asked, explain
from radfound.engine.openai.prompt import picture_part, text_part
from radfound.engine.openai.tokens import TOP
from radfound.exceptions import ModelServerError, ModelSettingsError, RadFoundError

_OWNERS = {"vllm": "vLLM", "llamacpp": "llama.cpp", "sglang": "SGLang", "library": "Ollama"}
_ABSENT = (404, 405, 501)
_PROBE_SIDE = 64


@dataclass(frozen=True)
class Server:
    """A server's model and abilities.

    Parameters
    ----------
    kind : str
        "vLLM", "llama.cpp", "SGLang", "Ollama", or "" if unknown.
    model : str
        Name of the model in requests.
    revision : str
        Hash of what the server says about the weights; it does not show the weights themselves.
    context_tokens : int or None
    vocabulary : int or None
    takes_pictures : bool
    top : int
        Number of likely tokens that come with each token; 0 for none.
    loads_adapters : bool
        Whether adapters can be loaded while it runs.
    adapters : mapping of str to int
        Adapters that it was started with: name of the file, without suffix, and number.
    """

    kind: str
    model: str
    revision: str
    context_tokens: int | None = None
    vocabulary: int | None = None
    takes_pictures: bool = True
    top: int = 0
    loads_adapters: bool = False
    adapters: Mapping[str, int] = field(default_factory=dict)

    @property
    def kind_of_adapters(self) -> Literal["none", "at start", "while running"]:
        """Which adapters can be used, as in `Abilities`."""
        if self.loads_adapters:
            return "while running"
        return "at start" if self.adapters else "none"


async def ask_server(connection: Connection, address: Address) -> Server:
    """Return what a server can do, by asking it.

    Parameters
    ----------
    connection : Connection
    address : Address

    Raises
    ------
    ModelServerError
        If the server cannot be reached, refuses the key or fails without a picture.
    ModelSettingsError
        If it has several models, or states none, and the address names none.
    """
    listed = await _listed(connection, address)
    model = _choose(listed, address)
    same = [each for each in listed if each.get("id") == model]
    # llama.cpp has one model, and answers for it by whatever name.
    alone = listed if len(listed) == 1 and listed[0].get("owned_by") == "llamacpp" else []
    entry = (same or alone or [{}])[0]
    server = _described(model, entry)
    if server.kind == "llama.cpp":
        server = await _ask_llama_cpp(connection, address, server)
    server = await _try_abilities(connection, address, server)
    if server.kind == "vLLM":
        loads = await _has_route(connection, "/load_lora_adapter")
        server = replace(server, loads_adapters=loads)
    return server


async def _listed(connection: Connection, address: Address) -> list[dict[str, Any]]:
    try:
        reply = await connection.get("/models")
    except openai.APIStatusError as error:
        # `transformers serve` fails here without a cache of the hub, and answers questions all the same.
        if error.status_code in (401, 403) or error.status_code < 400:
            raise explain(error, Asked(address.host, "")) from None
        return []
    except Exception as error:
        raise explain(error, Asked(address.host, "")) from None
    data = reply.get("data") if isinstance(reply, dict) else None
    entries = data if isinstance(data, list) else []
    return [entry for entry in entries if isinstance(entry, dict) and entry.get("id")]


def _choose(listed: list[dict[str, Any]], address: Address) -> str:
    if address.model:
        return address.model
    # vLLM lists adapters as models with a parent.
    names = [str(entry["id"]) for entry in listed if not entry.get("parent")]
    if len(names) == 1:
        return names[0]
    found = f"it has {', '.join(names[:8])}" if names else "it does not list its models"
    raise ModelSettingsError(
        f"place: {address.host} needs the name of a model, and {found}; add it as in "
        f"{address.url}#name"
    )


def _described(model: str, entry: Mapping[str, Any]) -> Server:
    meta = entry.get("meta") or {}
    stable = {
        name: entry[name] for name in ("id", "root", "owned_by", "max_model_len") if name in entry
    }
    stated = json.dumps([model, stable, {**meta, "n_ctx": None}], sort_keys=True, default=str)
    return Server(
        kind=_OWNERS.get(str(entry.get("owned_by")), ""),
        model=model,
        revision=hashlib.sha256(stated.encode()).hexdigest()[:12],
        context_tokens=_whole(entry.get("max_model_len")) or _whole(meta.get("n_ctx")),
        vocabulary=_whole(meta.get("n_vocab")),
    )


async def _ask_llama_cpp(connection: Connection, address: Address, server: Server) -> Server:
    try:
        entries = await connection.get(f"{address.root}/lora-adapters")
    except openai.APIStatusError:
        entries = []
    adapters = {
        PurePath(str(entry.get("path"))).stem: entry["id"]
        for entry in (entries if isinstance(entries, list) else [])
        if isinstance(entry, dict) and isinstance(entry.get("id"), int)
    }
    return replace(server, adapters=adapters)


async def _try_abilities(connection: Connection, address: Address, server: Server) -> Server:
    """Ask for one token with and without a picture and log-probabilities; keep what is answered first."""
    asked = Asked(address.host, server.model, pictures=1)
    failure: RadFoundError | None = None
    for takes_pictures, top in ((True, TOP), (True, 0), (False, TOP), (False, 0)):
        body: dict[str, Any] = {
            "model": server.model,
            "messages": [{"role": "user", "content": _probe(takes_pictures)}],
            "max_tokens": 1,
            "temperature": 0,
        }
        if top:
            body |= {"logprobs": True, "top_logprobs": top}
        if server.adapters:
            body["lora"] = [{"id": each, "scale": 0.0} for each in server.adapters.values()]
        try:
            reply = await connection.chat(body)
        except openai.APIStatusError as error:
            failure = explain(error, asked)
            if error.status_code in (401, 403, 404, 429) or error.status_code < 400:
                break
            continue
        except Exception as error:
            failure = explain(error, asked)
            break
        entries = ((reply["choices"][0].get("logprobs") or {}).get("content")) or []
        known = top if entries and entries[0].get("top_logprobs") else 0
        return replace(server, takes_pictures=takes_pictures, top=known)
    raise failure or ModelServerError(f"{address.host}: the model server answers no question")


def _probe(with_picture: bool) -> list[dict[str, Any]]:
    text = [text_part("Answer yes or no.")]
    if not with_picture:
        return text
    ramp = np.linspace(0, 255, _PROBE_SIDE, dtype=np.uint8)
    pixels = np.repeat(np.broadcast_to(ramp, (_PROBE_SIDE, _PROBE_SIDE))[..., None], 3, axis=2)
    return [picture_part(np.ascontiguousarray(pixels)), *text]


async def _has_route(connection: Connection, path: str) -> bool:
    try:
        await connection.post(path, {"lora_name": "", "lora_path": ""})
    except openai.APIStatusError as error:
        return error.status_code not in _ABSENT
    return True


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and value > 0 else None
