"""HTTP session with an archive: time-outs, retries, credentials and certificates."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import requests
from requests.adapters import HTTPAdapter
from requests.auth import AuthBase
from urllib3.exceptions import ReadTimeoutError
from urllib3.util import Retry

from radfound.exceptions import RequestError

from .settings import CONNECT_TIMEOUT_S, PacsSettings

_CONNECTIONS = 32


def open_session(settings: PacsSettings) -> requests.Session:
    """Return a session with an archive; safe for use by several threads.

    A broken connection is retried for GET, never for POST: what was stored must not depend on a guess
    whether the first attempt arrived. Silence is not retried.
    """
    # They quote addresses and UIDs, which identify patients and studies.
    for name in ("urllib3", "dicomweb_client", "requests", "highdicom"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module="dicomweb_client")
    session = requests.Session()
    retry = _Retry(total=3, connect=0, status=0, other=0, allowed_methods={"GET"})
    adapter = _TimedAdapter(settings.timeout_s, max_retries=retry, pool_maxsize=_CONNECTIONS)
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    if settings.token_file is not None:
        session.auth = BearerFile(settings.token_file)
    elif settings.user:
        session.auth = (settings.user, settings.password)
    if settings.ca_file is not None:
        session.verify = str(settings.ca_file)
        # REQUESTS_CA_BUNDLE in the environment would take precedence over `verify`.
        session.trust_env = False
    if settings.certificate is not None:
        certificate = str(settings.certificate)
        session.cert = (certificate, str(settings.key)) if settings.key else certificate
    return session


class BearerFile(AuthBase):
    """Bearer token from a file, read again when the archive answers 401.

    Parameters
    ----------
    path : Path

    Raises
    ------
    RequestError
        From a request, if the file cannot be read or holds no token.
    """

    def __init__(self, path: Path):
        self._path = path
        self._token = self._read()

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Add the token to a request."""
        request.headers["Authorization"] = f"Bearer {self._token}"
        request.register_hook("response", self._again)
        return request

    def _read(self) -> str:
        try:
            token = self._path.read_text(encoding="ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise RequestError(
                f"pacs_token_file: cannot be read ({type(error).__name__}); expected a bearer token"
            ) from None
        if not token or any(letter.isspace() for letter in token):
            raise RequestError("pacs_token_file: expected one bearer token, without blanks")
        return token

    def _again(self, response: requests.Response, **kwargs: Any) -> requests.Response:
        """Repeat a refused request once if the file holds another token by now."""
        if response.status_code != requests.codes.unauthorized:
            return response
        try:
            token = self._read()
        except RequestError:  # being written just now
            return response
        sent = response.request.headers.get("Authorization")
        is_repeatable = response.request.body is None or isinstance(
            response.request.body, (bytes, str)
        )
        if sent == f"Bearer {token}" or not is_repeatable:
            return response
        self._token = token
        response.content  # noqa: B018  gives the connection back
        response.close()
        again = response.request.copy()
        again.headers["Authorization"] = f"Bearer {token}"
        repeated = response.connection.send(again, **kwargs)
        repeated.history.append(response)
        repeated.request = again
        return repeated


class _Retry(Retry):
    """Retries for connections that an archive has closed meanwhile."""

    def increment(
        self,
        method: str | None = None,
        url: str | None = None,
        response: Any = None,
        error: Exception | None = None,
        _pool: Any = None,
        _stacktrace: Any = None,
    ) -> _Retry:
        if isinstance(error, ReadTimeoutError):
            raise error
        return super().increment(method, url, response, error, _pool, _stacktrace)


class _TimedAdapter(HTTPAdapter):
    """Adapter whose requests have a time-out; those of `requests` have none."""

    def __init__(self, read_timeout_s: float, **kwargs: Any):
        self._timeout = (CONNECT_TIMEOUT_S, read_timeout_s)
        super().__init__(**kwargs)

    def send(self, *args: Any, **kwargs: Any) -> requests.Response:
        if kwargs.get("timeout") is None:
            kwargs["timeout"] = self._timeout
        return super().send(*args, **kwargs)
