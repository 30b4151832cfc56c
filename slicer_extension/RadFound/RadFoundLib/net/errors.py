"""The one error that talking to a server ends in."""

from typing import Optional


class ClientError(Exception):
    """A call to a server that came to nothing.

    Parameters
    ----------
    message : str
        What was found and what to do, for the reader; never holds a token, a question or an
        answer.
    kind : {"unreachable", "timeout", "cancelled", "refused", "request", "server", "protocol"}
        unreachable: nobody listens, or the connection was lost; timeout: no word for too long;
        cancelled: by the reader; refused: 401 or 403; request: any other 4xx, and what is wrong
        before anything is sent; server: 5xx; protocol: not what a RadFound server would say
        (garbage, half a stream, a redirect).
    code : str, optional
        The server's own name for the error, such as "study_unreadable".
    """

    def __init__(self, message: str, kind: str, code: Optional[str] = None):
        super().__init__(message)
        self.message = message
        self.kind = kind
        self.code = code
