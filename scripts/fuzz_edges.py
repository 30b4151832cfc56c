"""Requests that schemathesis does not send: extreme numbers, malformed headers, odd paths, HEAD on every route.

Part of `make fuzz`; alone: `python scripts/fuzz_edges.py URL`, which prints the count of each status.
"""

from __future__ import annotations

import itertools
import socket
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlsplit

import requests

NUMBERS = ("1e400", "-1e400", "NaN", "Infinity", "-1", "1.5", str(2**31), str(2**63), str(-(2**63) - 1),
           "9" * 20, "9" * 5000, "0x10", "１", "")  # fmt: skip
NAMES = ("..", "../..", "..%2f..%2f..", "%2e%2e/%2e%2e", "%00", "%ff%fe", "%c0%af", "a%0d%0ab", "x" * 5000,
         "%ed%a0%80", "//", "~", "CON", "%25%32%66", "*", "%F0%9F%A9%BB")  # fmt: skip
HEADERS = (
    "Content-Length: -1", "Content-Length: 99999999999999999999999", "Content-Length: \xb2", "Content-Length: 0, 0",
    "Transfer-Encoding: chunked", "Transfer-Encoding: \xff", "Range: bytes=99999999999999999999-", "Range: bytes=5-1",
    "Range: lines=1-", "If-Range: \xff", "If-None-Match: " + "\"x\"," * 2000, "If-Modified-Since: never",
    "Content-Type: \xff", "Content-Type: application/json; charset=none", "Content-Type: multipart/form-data",
    "Content-Type: multipart/form-data; boundary=" + "x" * 5000, "Accept: \xff", "Cookie: \xff=\xff; =; a",
    "Authorization: Bearer \xff", "Authorization: Basic Og==", "X-Forwarded-For: \xff", "Expect: 100-continue",
    "Upgrade: websocket", "Accept-Encoding: \xff;q=1e400",
)  # fmt: skip
BODIES = tuple(f'{{"{name}": {value}}}' for name, value in itertools.product(
    ("limit", "max_steps", "learning_rate", "max_new_tokens", "volume", "client_id", "max_workers", "questions"),
    ("1e400", "NaN", str(2**63), "9" * 5000, '"\\ud800"', "[[[[]]]]", "{}", "null", "-1", "1.5"),
)) + ("[" * 100_000, "{", "", "null", "\xff\xfe", '{"a": 1, "a": 2}')  # fmt: skip
TIMEOUT_S = 60

Request = tuple[str, str, tuple[str, ...], bytes]


def main() -> int:
    """Send all requests to a server."""
    statuses = send_edges(sys.argv[1])
    print(", ".join(f"{status} {count}" for status, count in sorted(statuses.items())))
    return 1 if any(status.startswith("5") for status in statuses) else 0


def send_edges(url: str) -> Counter[str]:
    """Send every request once; print those with a 5xx, and return the count of each status."""
    description = requests.get(f"{url}/openapi.json", timeout=TIMEOUT_S).json()
    statuses: Counter[str] = Counter()
    for method, path, headers, body in _requests(description["paths"]):
        status = _send(url, method, path, headers, body)
        statuses[status] += 1
        if status.startswith("5"):
            print(f"{status}: {method} {path[:200]} {headers} {body[:200]!r}")
    return statuses


def _requests(paths: dict[str, Any]) -> Iterator[Request]:
    for path, methods in paths.items():
        plain = path.replace("{", "").replace("}", "")
        for method, operation in methods.items():
            yield from _addresses(method.upper(), path, operation)
            if "requestBody" in operation:
                for body in BODIES:
                    content = body.encode("latin-1")
                    kind = ("Content-Type: application/json", f"Content-Length: {len(content)}")
                    yield method.upper(), plain, kind, content
        yield "HEAD", plain, (), b""
        for header in HEADERS:
            yield "GET", plain, (header,), b""


def _addresses(method: str, path: str, operation: dict[str, Any]) -> Iterator[Request]:
    """Yield requests with odd path variables, and with odd numbers and names in the query."""
    if "{" in path:
        start, _, end = path.partition("{")
        for name in NAMES:
            yield method, start + name + end.partition("}")[2], (), b""
    plain = path.replace("{", "").replace("}", "")
    for parameter in operation.get("parameters", ()):
        if parameter["in"] == "query":
            for value in (*map(quote, NUMBERS), *NAMES):
                yield method, f"{plain}?{parameter['name']}={value}", (), b""


def _send(url: str, method: str, path: str, headers: tuple[str, ...], body: bytes) -> str:
    """Send a raw request, which a client library would correct; return its status."""
    place = urlsplit(url)
    head = (f"{method} {path} HTTP/1.1", f"Host: {place.netloc}", "Connection: close", *headers)
    with socket.create_connection((place.hostname, place.port), timeout=TIMEOUT_S) as line:
        line.sendall("\r\n".join((*head, "", "")).encode("latin-1", "replace") + body)
        try:
            words = line.makefile("rb").readline().split()
        except (ConnectionError, TimeoutError) as error:
            return type(error).__name__
    return words[1].decode("ascii") if len(words) > 1 else "closed"


if __name__ == "__main__":
    sys.exit(main())
