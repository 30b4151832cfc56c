"""A backend for models behind any server of the chat-completions protocol, by the `openai` package.

`backend.py` has the verbs; `connection.py` the event loop and HTTP client; `server.py` asks once what the
server can do; `prompt.py` turns a study into messages, `tokens.py` chunks into tokens, `failures.py` errors of
the server into RadFound's; `adapters.py` names adapters in requests, `turns.py` keeps them apart; `address.py` says where pictures may go.
May import `radfound.engine.protocol`, `radfound.study` and `radfound.records`; never torch.
"""
