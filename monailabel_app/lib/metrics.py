"""Prometheus metrics of the server; no label holds an id or a text."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from typing import Protocol

from monailabel.utils.async_tasks.utils import processes
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from radfound.exceptions import RadFoundError
from radfound.question import Answer
from radfound.records.corrections import CorrectionLog

logger = logging.getLogger(__name__)

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 60, 150)
_METHODS = {"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"}


class Watched(Protocol):
    """The service's state, collected when the metrics are requested."""

    log: CorrectionLog

    @property
    def waiting(self) -> int:
        """Number of queued questions."""

    @property
    def running(self) -> int:
        """Number of answers being generated."""

    @property
    def is_loaded(self) -> bool:
        """Whether the model is in memory."""

    def cache_counts(self) -> dict[tuple[str, str], int]:
        """Return the hits and misses of each cache by (cache, "hit" or "miss")."""


class Metrics:
    """Counters of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "radfound_requests",
            "Requests by route and status",
            ("method", "route", "status"),
            registry=self.registry,
        )
        self._request_s = Histogram(
            "radfound_request_seconds",
            "Time to the end of a response",
            ("route",),
            registry=self.registry,
            buckets=_SECONDS,
        )
        self._first_token_s = Histogram(
            "radfound_first_token_seconds",
            "Time to the first token of an answer, loading the study included",
            ("task",),
            registry=self.registry,
            buckets=_SECONDS,
        )
        self._answer_s = Histogram(
            "radfound_answer_seconds",
            "Time to the end of an answer, loading the study included",
            ("task",),
            registry=self.registry,
            buckets=_SECONDS,
        )
        self._pieces = Counter(
            "radfound_tokens", "Pieces of text sent, a token each", registry=self.registry
        )

    def watch(self, service: Watched) -> None:
        """Collect the state of a service too."""
        self.registry.register(_State(service))

    def note_request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a completed request."""
        method = method if method in _METHODS else "other"
        self._requests.labels(method, route, str(status)).inc()
        self._request_s.labels(route).observe(seconds)

    def note_token(self) -> None:
        """Count a piece of text."""
        self._pieces.inc()

    def note_answer(self, answer: Answer) -> None:
        """Count a completed answer."""
        timings = answer.timings_ms
        self._first_token_s.labels(answer.task).observe(timings["first_token"] / 1000)
        self._answer_s.labels(answer.task).observe(timings["total"] / 1000)


class _State:
    """Gauges and counters read from the service at each collection."""

    def __init__(self, service: Watched):
        self._service = service

    def collect(self) -> Iterable[Metric]:
        """Yield the state of the service as metrics."""
        service = self._service
        gauges = (
            ("radfound_answers_waiting", "Questions in the queue", service.waiting),
            ("radfound_answers_running", "Answers being generated", service.running),
            ("radfound_model_loaded", "Whether the model is in memory", service.is_loaded),
            ("radfound_training_running", "Whether a training runs", bool(processes("train"))),
        )
        for name, text, value in gauges:
            yield GaugeMetricFamily(name, text, value=float(value))
        try:
            yield GaugeMetricFamily(
                "radfound_corrections", "Corrections in the log", value=service.log.count()
            )
        except RadFoundError as error:  # the other metrics are still reported
            logger.warning("the corrections cannot be counted: %s", error.code)
        found = CounterMetricFamily(
            "radfound_cache", "Cache hits and misses", labels=("cache", "found")
        )
        for (cache, result), count in service.cache_counts().items():
            found.add_metric((cache, result), count)
        yield found


class Counting:
    """Count each request under the pattern of its route, never under its path."""

    def __init__(self, app: ASGIApp, metrics: Metrics):
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on and count it when it has ended."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        began, status = time.monotonic(), 500

        async def noting_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, noting_send)
        finally:
            route = getattr(scope.get("route"), "path", None) or "none"
            self._metrics.note_request(scope["method"], route, status, time.monotonic() - began)
