"""A small server of the protocol that does what a test tells it: refuse, die, redirect, never end."""

import asyncio
import json
import threading
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, RedirectResponse, Response, StreamingResponse

WORDS = ("No", " effusion", " is", " seen", ".")


def chunk(text=None, finish=None, top=(), **more):
    choice = {"index": 0, "delta": {} if text is None else {"content": text}, **more}
    choice["finish_reason"] = finish
    if top:
        entries = [{"token": t, "logprob": p, "bytes": None} for t, p in top]
        choice["logprobs"] = {"content": [{**entries[0], "top_logprobs": entries}]}
    return {"object": "chat.completion.chunk", "choices": [choice]}


def event(value):
    return f"data: {value if isinstance(value, str) else json.dumps(value)}\n\n"


class Scripted:
    """Answers like a server with the model "m"; `script` replaces the next answers."""

    def __init__(self):
        self.app = FastAPI()
        self.url = ""
        self.models = [{"id": "m", "owned_by": "vllm", "max_model_len": 4096, "root": "m"}]
        self.requests: list[dict] = []
        self.headers: list[dict] = []
        self.script = None
        self.open_streams = 0
        self.most_pictures = 99
        self.models_status = 200
        self.logprobs = True
        self.app.get("/v1/models")(self._list)
        self.adapters: dict[str, str] = {}
        self.applies_adapters = True
        self.app.post("/v1/chat/completions")(self._chat)

    def load_adapters_while_running(self):
        """Have vLLM's routes for adapters."""
        self.app.post("/v1/load_lora_adapter")(self._load)
        self.app.post("/v1/unload_lora_adapter")(self._unload)

    async def _load(self, request: Request):
        body = await request.json()
        if not body["lora_name"]:
            return refusal(400, "Both 'lora_name' and 'lora_path' must be provided.")
        if body["lora_name"] in self.adapters:
            return refusal(400, "The lora adapter has already been loaded.")
        self.adapters[body["lora_name"]] = body["lora_path"]
        return Response("Success: LoRA adapter added successfully.")

    async def _unload(self, request: Request):
        self.adapters.pop((await request.json())["lora_name"], None)
        return Response("Success: LoRA adapter removed successfully.")

    async def _list(self, request: Request):
        self.headers.append(dict(request.headers))
        return JSONResponse({"data": self.models}, self.models_status)

    async def _chat(self, request: Request):
        body = json.loads(await request.body())
        self.requests.append(body)
        self.headers.append(dict(request.headers))
        if self.script is not None and body.get("stream"):
            return await self.script(body)
        pictures = json.dumps(body["messages"]).count("image_url") // 2
        if pictures > self.most_pictures:
            message = f"At most {self.most_pictures} image(s) may be provided in one prompt."
            return refusal(400, message)
        if not body.get("stream"):
            message = {"role": "assistant", "content": "No"}
            reply = {"choices": [{"message": message, "finish_reason": "length"}]}
            if self.logprobs and body.get("logprobs"):
                changed = self.applies_adapters and body["model"] in self.adapters
                likely = chunk("No", top=[("No", -0.5 if changed else -0.1)])
                reply["choices"][0]["logprobs"] = likely["choices"][0]["logprobs"]
            return reply
        return self.streamed(self.answer())

    async def answer(self):
        for word in WORDS:
            yield event(chunk(word, top=[(word, -0.5), (" other", -1.5)] if self.logprobs else ()))
        yield event(chunk(finish="stop", top=[("<|im_end|>", -0.25)] if self.logprobs else ()))
        yield event("[DONE]")

    def streamed(self, events):
        async def counted():
            self.open_streams += 1
            try:
                async for each in events:
                    yield each
            finally:
                self.open_streams -= 1

        return StreamingResponse(counted(), media_type="text/event-stream")


def refusal(status, message="no", headers=None, **fields):
    error = {"message": message, "type": "error", "code": status, **fields}
    return JSONResponse({"error": error}, status, headers)


def redirect(url):
    return RedirectResponse(url, 307)


def reply(text):
    return Response(text, media_type="text/event-stream")


async def forever(make, pause_s=0.001):
    while True:
        yield make()
        await asyncio.sleep(pause_s)


@contextmanager
def serving(scripted: Scripted):
    config = uvicorn.Config(
        scripted.app,
        "127.0.0.1",
        0,
        log_level="critical",
        lifespan="off",
        timeout_graceful_shutdown=1,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        thread.join(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    scripted.url = f"http://127.0.0.1:{port}/v1"
    try:
        yield scripted
    finally:
        server.should_exit = True
        thread.join()
