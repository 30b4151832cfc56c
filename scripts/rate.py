"""Submit random ratings of all items of a reader study, to try the analysis without readers.

`python scripts/rate.py DIR`, while `radfound reader-study serve DIR` runs. Not for a study with real readers.
"""

from __future__ import annotations

import json
import random
import sys
import urllib.request
from pathlib import Path
from typing import Any

VERDICTS = ("first", "second", "tie")


def main() -> int:
    """Rate as every reader; print the number of saved ratings."""
    links = (Path(sys.argv[1]) / "tokens.txt").read_text(encoding="utf-8")
    dice = random.Random(0)
    saved = 0
    for address in (word for word in links.split() if "/#" in word):
        server, token = address.split("/#")
        call = Caller(server, token)
        criteria = [each["key"] for each in call("/study")["criteria"]]
        call("/ratings", {"kind": "agreement", "value": "yes"})
        for item in call("/study")["items"]:
            for rating in ratings(call(f"/items/{item['id']}"), criteria, dice):
                call("/ratings", {"item": item["id"], "seconds": 1.0, **rating})
                saved += 1
    print(f"{saved} ratings at random")
    return 0


class Caller:
    """Client of a reader study's server, as one reader."""

    def __init__(self, server: str, token: str):
        self._server = server
        self._headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}

    def __call__(self, path: str, body: dict[str, Any] | None = None) -> Any:
        """Send a GET, or a POST with `body`; return the JSON of the reply."""
        content = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self._server + path, content, self._headers)
        with urllib.request.urlopen(request, timeout=60) as reply:
            return json.load(reply)


def ratings(item: dict[str, Any], criteria: list[str], dice: random.Random) -> list[dict[str, str]]:
    """Return a score for each text and criterion, and a preference for each pair."""
    scores = [
        {"kind": "score", "candidate": each["id"], "name": name, "value": str(dice.randint(1, 5))}
        for each in item["candidates"]
        for name in criteria
    ]
    preferences = [
        {"kind": "preference", "candidate": one, "name": other, "value": dice.choice(VERDICTS)}
        for one, other in item["pairs"]
    ]
    return scores + preferences


if __name__ == "__main__":
    sys.exit(main())
