"""Error responses: {"detail": {"code", "message"}} with a 4xx status for a caller's mistake."""

from __future__ import annotations

import logging

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from monailabel.interfaces.exception import (
    ImageNotFoundException,
    LabelNotFoundException,
    MONAILabelError,
    MONAILabelException,
)

from radfound.exceptions import Busy, NotFoundError, RadFoundError, RequestError
from radfound.wire import error_to_json

logger = logging.getLogger(__name__)

# Values that pass the checks and fail later: numbers out of range, lone surrogates.
_CALLERS = (OverflowError, UnicodeError)


def install_error_handlers(app: FastAPI) -> None:
    """Answer a caller's mistake with 4xx, wherever it is found."""
    app.add_exception_handler(RadFoundError, _radfound_error)
    app.add_exception_handler(MONAILabelException, _monailabel_error)
    app.add_exception_handler(RequestValidationError, _wrong_shape)
    for kind in _CALLERS:
        app.add_exception_handler(kind, _unrepresentable)
    app.add_exception_handler(Exception, _unforeseen)


def error_response(error: RadFoundError) -> JSONResponse:
    """Return the response for an error."""
    headers = {"Retry-After": str(error.retry_after_s)} if isinstance(error, Busy) else None
    return JSONResponse(error_to_json(error), status_code=error.http_status, headers=headers)


def _radfound_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RadFoundError)
    logger.info("refused: %s", error.code)
    return error_response(error)


def _monailabel_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, MONAILabelException)
    if isinstance(error, (ImageNotFoundException, LabelNotFoundException)):
        return error_response(NotFoundError(str(error.msg)))
    if error.error is MONAILabelError.INVALID_INPUT or request.url.path.startswith(
        "/activelearning"
    ):
        return error_response(RequestError(str(error.msg)))
    return _unforeseen(request, error)


def _wrong_shape(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    # The value itself is left out: it may be a question, or a name.
    where = ".".join(str(part) for part in first["loc"])
    response = error_response(RequestError(f"{where}: {first['msg']}"))
    response.status_code = 422
    return response


def _unrepresentable(request: Request, error: Exception) -> JSONResponse:
    logger.warning("refused: %s in %s", type(error).__name__, _route(request), exc_info=error)
    return error_response(
        RequestError("the request holds a number that is too large, or text that is no Unicode")
    )


def _unforeseen(request: Request, error: Exception) -> JSONResponse:
    logger.error("%s %s failed", request.method, _route(request), exc_info=error)
    return JSONResponse(error_to_json(error), status_code=500)


def _route(request: Request) -> str:
    """Return the route's pattern; the path itself may hold a name."""
    return getattr(request.scope.get("route"), "path", "none")
