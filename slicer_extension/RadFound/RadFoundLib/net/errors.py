"""The error of every failed request to a server."""

from typing import Optional


class ClientError(Exception):
    """A failed request to a server.

    Parameters
    ----------
    message : str
        What was found and what to do, in words for the reader; never contains a token, a
        question or an answer.
    kind : {"unreachable", "timeout", "cancelled", "refused", "request", "server", "protocol"}
        unreachable: no connection, or it was lost; timeout: no data for too long; cancelled: by
        the reader; refused: 401 or 403; request: any other 4xx, or an error before anything is
        sent; server: 5xx; protocol: not a reply of a RadFound server (garbage, an incomplete
        stream, a redirect).
    code : str, optional
        The server's own name for the error, such as "study_unreadable".
    """

    def __init__(self, message: str, kind: str, code: Optional[str] = None):
        super().__init__(message)
        self.message = message
        self.kind = kind
        self.code = code
