"""Install this app's routes in MONAI Label's server."""

from __future__ import annotations

from fastapi import APIRouter, FastAPI
from monailabel.config import settings
from monailabel.endpoints import (
    activelearning,
    batch_infer,
    datastore,
    infer,
    logs,
    model,
    ohif,
    proxy,
    scoring,
    session,
    train,
    wsi_infer,
)
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from radfound.same_origin import SameOrigin
from radfound.wire import ErrorReply

from ..access import Admission, BodyLimit, Gate, Rules, SafeHeaders
from ..browser import routes as browser
from ..browser import viewer
from ..metrics import Counting, Metrics
from . import answering, department, others, own, pages, stored, tasks, training
from .errors import install_error_handlers
from .fields import insist_on_json
from .folders import Folders, hide_folders
from .learning import teaching
from .pacs import archive, reports

# Replaced by routes of `answering`, `others`, `pages`, `stored` and the browser pages.
_REPLACED = (
    (infer.router, "/infer/{model}", "POST"),
    (datastore.router, "/datastore/", "PUT"),
    (datastore.router, "/datastore/image", "PUT"),
    (datastore.router, "/datastore/image", "GET"),
    (datastore.router, "/datastore/", "DELETE"),
    (datastore.router, "/datastore/image", "DELETE"),
    (datastore.router, "/datastore/label", "DELETE"),
    (datastore.router, "/datastore/image", "HEAD"),
    (datastore.router, "/datastore/dataset", "GET"),
    (datastore.router, "/datastore/image/info", "PUT"),
    (datastore.router, "/datastore/label", "PUT"),
    (datastore.router, "/datastore/label/info", "PUT"),
    (datastore.router, "/datastore/updatelabelinfo", "PUT"),
    (logs.router, "/logs/", "GET"),
    (logs.router, "/logs/gpu", "GET"),
    (ohif.router, "/ohif/{path:path}", "GET"),
    (session.router, "/session/", "PUT"),
    (activelearning.router, "/activelearning/{strategy}", "POST"),
)
_OTHERS = (activelearning.router, datastore.router, session.router)
_OWN = (
    answering.router, tasks.router, training.router, stored.router, stored.sessions, others.router, own.router,
    pages.logs, teaching.router, browser.router, department.router,
)  # fmt: skip
# Not offered: there are no whole slides here, and weights come as adapters that pass a gate.
_REMOVED = (
    (wsi_infer.router, "/infer/wsi/{model}", "POST"),
    (wsi_infer.router, "/infer/wsi_v2/{model}", "POST"),
    (model.router, "/model/{model}", "PUT"),
    (model.router, "/model/{model}", "DELETE"),
)


def install_routes(
    app: FastAPI, rules: Rules, metrics: Metrics, folders: Folders, *, is_local: bool
) -> None:
    """Add, replace and remove routes; safe to call again.

    Must run before the server's first request, as MONAI Label's start-up hook does.

    Parameters
    ----------
    app : FastAPI
        MONAI Label's.
    rules : Rules
    metrics : Metrics
    folders : Folders
        Folders of the server's disk, hidden in replies.
    is_local : bool
        Whether the studies are a folder; there are then no routes of an archive.
    """
    if getattr(app.state, "has_radfound", False):
        return
    app.state.has_radfound = True
    for router, path, method in _REPLACED + _REMOVED:
        _remove(router, path, method)
    for router in (train.router, batch_infer.router, scoring.router):
        router.routes.clear()  # replaced by `tasks`
    proxy.router.routes.clear()  # drops the query, blocks the event loop and lets viewers write
    own_routes: tuple[APIRouter, ...] = _OWN
    if not is_local:
        _remove(datastore.router, "/datastore/", "GET")
        own_routes = (*_OWN, archive.proxy, archive.lists, reports.router)
    _remove(app.router, "/reload", "POST")  # it would load a second model beside the first
    _remove(app.router, "/", "GET")
    _remove(app.router, "/docs", "GET")
    insist_on_json((*_OTHERS, *own_routes))
    # Not the routes of `own` and `teaching`: they hold no paths, and must return corrections unchanged.
    hidden = (
        answering.router,
        tasks.router,
        training.router,
        stored.router,
        stored.sessions,
        others.router,
    )
    hide_folders((*_OTHERS, *hidden, archive.lists), folders)
    app.state.folders = folders
    for part in own_routes:
        app.include_router(
            part, prefix=settings.MONAI_LABEL_API_STR, responses={"4XX": {"model": ErrorReply}}
        )
    app.include_router(pages.router)
    app.include_router(browser.pages)
    app.include_router(viewer.router)
    install_error_handlers(app)
    _install_guard(app, rules, metrics)


def _install_guard(app: FastAPI, rules: Rules, metrics: Metrics) -> None:
    """Install the middleware that runs before the routes, outermost first.

    By default MONAI Label accepts calls from pages of every origin; this app accepts none.
    """
    named = map(str, settings.MONAI_LABEL_CORS_ORIGINS)
    origins = [*rules.origins, *(origin.rstrip("/") for origin in named)]
    app.state.admission = Admission(rules.token) if rules.token else None
    app.user_middleware = [
        Middleware(Counting, metrics=metrics),
        Middleware(
            SafeHeaders,
            policies={viewer.ADDRESS: viewer.viewer_headers(), browser.PANEL: browser.HEADERS},
        ),
        Middleware(SameOrigin, hosts=rules.hosts, origins=origins),
        Middleware(CORSMiddleware, allow_origins=origins, allow_methods=["*"], allow_headers=["*"]),
        Middleware(Gate, rules=rules, admission=app.state.admission),
        Middleware(BodyLimit, rules=rules),
    ]
    app.middleware_stack = None  # starlette rebuilds it at the next call


def _remove(router: APIRouter, path: str, method: str) -> None:
    found = [
        route
        for route in router.routes
        if getattr(route, "path", None) == path and method in getattr(route, "methods", ())
    ]
    if len(found) != 1:
        raise RuntimeError(f"MONAI Label has no {method} {path}; this app was made for 0.8.5")
    router.routes.remove(found[0])
