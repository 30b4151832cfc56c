"""HTTP requests that can be cancelled at any moment.

Uses http.client rather than requests, because cancelling needs the socket even before its first
byte. Proxies are not used: a hospital's server is in the hospital's network, and requests to it
should not pass through other machines.
"""

import errno
import os
import selectors
import socket
import ssl
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse, IncompleteRead
from typing import Optional, Union

from ..translation import _
from .address import Address
from .cancellation import Cancellation
from .errors import ClientError

CONNECT_S = 5.0
# The client's own code for a certificate that is not trusted.
NOT_TRUSTED = "certificate_not_trusted"
_LOOK_AGAIN_S = 0.05
_UNDER_WAY = (0, errno.EINPROGRESS, errno.EWOULDBLOCK, getattr(errno, "WSAEWOULDBLOCK", 0))

Body = Union[bytes, Iterable[bytes], None]


class _Line:
    """The socket of one request; cutting it ends every wait on the socket.

    Keeps a second handle of the connection: shutting it down ends a TLS handshake, a read or a
    write on any object that uses the connection.
    """

    def __init__(self, cancel: Optional[Cancellation], limit_s: Optional[float]):
        self._lock = threading.Lock()
        self._handle: Optional[socket.socket] = None
        self._cancel = cancel
        self._timer: Optional[threading.Timer] = None
        self.is_late = False
        self.is_cut = False
        self.is_connected = False
        if cancel is not None:
            cancel.call_when_set(self.cut)
        if limit_s is not None:
            self._timer = threading.Timer(limit_s, self._expire)
            self._timer.daemon = True
            self._timer.start()

    def connect(self, host: str, port: int, silence_s: float) -> socket.socket:
        """Connect to the first of the host's addresses that answers; OSError if none does."""
        try:
            places = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except UnicodeError as error:
            raise OSError(errno.EINVAL, "not a host's name") from error
        failure = OSError(errno.EHOSTUNREACH, "no address")
        for family, kind, protocol, _name, place in places:
            connection = socket.socket(family, kind, protocol)
            try:
                self._reach(connection, place)
                connection.settimeout(silence_s)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._hold(connection)
                return connection
            except OSError as error:
                connection.close()
                failure = error
                if self.is_cut:
                    break
        raise failure

    def cut(self) -> None:
        """Shut the connection down; returns at once."""
        with self._lock:
            self.is_cut = True
            if self._handle is not None:
                with suppress(OSError):  # the other side may have closed it
                    self._handle.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Release the timer, the callback and the socket handle."""
        if self._timer is not None:
            self._timer.cancel()
        if self._cancel is not None:
            self._cancel.forget(self.cut)
        with self._lock:
            if self._handle is not None:
                self._handle.close()
                self._handle = None

    def _expire(self) -> None:
        self.is_late = True
        self.cut()

    def _hold(self, connection: socket.socket) -> None:
        with self._lock:
            if self.is_cut:
                raise ConnectionAbortedError("cut")
            self._handle = connection.dup()
            self.is_connected = True

    def _reach(self, connection: socket.socket, place: object) -> None:
        connection.setblocking(False)
        state = connection.connect_ex(place)  # type: ignore[arg-type]
        if state not in _UNDER_WAY:
            raise OSError(state, os.strerror(state))
        deadline = time.monotonic() + CONNECT_S
        with selectors.DefaultSelector() as selector:
            selector.register(connection, selectors.EVENT_WRITE)
            while not selector.select(_LOOK_AGAIN_S):
                if self.is_cut:
                    raise ConnectionAbortedError("cut")
                if time.monotonic() > deadline:
                    raise socket.timeout("connecting")
        state = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if state:
            raise OSError(state, os.strerror(state))


class Reply:
    """A server's reply, read as a stream.

    Parameters
    ----------
    response : HTTPResponse
    connection : socket
        Socket of the response, for its timeout.
    """

    def __init__(self, response: HTTPResponse, connection: socket.socket):
        self._response = response
        self._connection = connection
        self.status = response.status
        self.headers = response.headers

    @property
    def length(self) -> Optional[int]:
        """Number of remaining bytes, or None if the server did not send it."""
        return self._response.length

    def allow_silence(self, silence_s: float) -> None:
        """Set the timeout for each following read."""
        self._connection.settimeout(silence_s)

    def line(self, limit: int) -> bytes:
        """Return the next line with its end; empty at the end of the reply."""
        return self._response.readline(limit)

    def pieces(self, size: int = 1 << 18) -> Iterator[bytes]:
        """Yield the body in pieces; ClientError "protocol" if it ends too early."""
        while True:
            piece = self._response.read(size)
            if not piece:
                break
            yield piece
        if self._response.length:
            raise half_a_reply()


@contextmanager
def request(
    address: Address,
    method: str,
    target: str,
    *,
    headers: Mapping[str, str],
    body: Body = None,
    silence_s: float,
    limit_s: Optional[float] = None,
    cancel: Optional[Cancellation] = None,
    ca_file: str = "",
) -> Iterator[Reply]:
    """Send a request and yield its reply, whatever its status; redirects are not followed.

    Parameters
    ----------
    address : Address
    method, target : str
        Such as GET and /info/; the target is already quoted.
    headers : mapping of str to str
        Include Content-Length if the body is an iterable of known length; otherwise it is sent in
        chunks.
    body : bytes or iterable of bytes, optional
    silence_s : float
        Timeout for each read or write.
    limit_s : float, optional
        Limit for the whole request.
    cancel : Cancellation, optional
    ca_file : str
        Further trusted certificates (PEM), such as those of a hospital's own authority.

    Raises
    ------
    ClientError
        Also for errors while the reply is read, inside the `with` block.
    """
    line = _Line(cancel, limit_s)
    try:
        if line.is_cut:
            raise ConnectionAbortedError("cut")
        connection = HTTPConnection(address.host, address.port)
        try:
            connection.sock = _open(line, address, silence_s, ca_file)
            held = connection.sock
            response = _exchange(connection, method, address.prefix + target, headers, body)
            with response:
                yield Reply(response, held)
        finally:
            connection.close()
        if line.is_cut:  # a body without a length may seem complete
            raise ConnectionAbortedError("cut")
    except (OSError, HTTPException) as error:
        raise _explained(error, line, address, cancel) from error
    except ClientError as error:
        if line.is_cut:  # a truncated reply may look malformed
            raise _explained(error, line, address, cancel) from error
        raise
    finally:
        line.close()


def half_a_reply() -> ClientError:
    """Return the error for a reply that ended too early."""
    return ClientError(
        _("The connection broke in the middle of the server's reply. Try again."), "protocol"
    )


def not_radfound(address: Address) -> ClientError:
    """Return the error for a reply that no RadFound server would give."""
    return ClientError(
        _(
            "The server at {where} is not a RadFound server, or has another version: check the "
            "address."
        ).format(where=address.where),
        "protocol",
    )


def _open(line: _Line, address: Address, silence_s: float, ca_file: str) -> socket.socket:
    tls = _tls_context(ca_file) if address.scheme == "https" else None
    plain = line.connect(address.host, address.port, silence_s)
    if tls is None:
        return plain
    try:
        return tls.wrap_socket(plain, server_hostname=address.host)
    except BaseException:
        plain.close()
        raise


def _tls_context(ca_file: str) -> ssl.SSLContext:
    """Trust `ca_file`, the machine's certificates, and those of REQUESTS_CA_BUNDLE or else certifi.

    Slicer's Python may not find the machine's certificates, and Slicer's launcher sets
    SSL_CERT_FILE to a list of its own, in which a hospital's authority is missing.
    """
    context = ssl.create_default_context()
    bundle = os.environ.get("REQUESTS_CA_BUNDLE", "")
    if not bundle:
        with suppress(ImportError):
            import certifi

            bundle = certifi.where()
    for path in filter(None, (bundle, ca_file)):
        try:
            if os.path.isdir(path):
                context.load_verify_locations(capath=path)
            else:
                context.load_verify_locations(cafile=path)
        except OSError as error:
            message = _(
                "The list of certificates at {path} cannot be read: see REQUESTS_CA_BUNDLE."
            )
            if path == ca_file:
                message = _("The certificate file {path} cannot be read: choose another one.")
            raise ClientError(message.format(path=path), "request", NOT_TRUSTED) from error
    return context


def _exchange(
    connection: HTTPConnection,
    method: str,
    target: str,
    headers: Mapping[str, str],
    body: Body,
) -> HTTPResponse:
    is_chunked = body is not None and not isinstance(body, bytes)
    is_chunked = is_chunked and "Content-Length" not in headers
    chunked = {"Transfer-Encoding": "chunked"} if is_chunked else {}
    sent = {"Accept-Encoding": "identity", "Connection": "close", **chunked, **headers}
    try:
        connection.request(method, target, body, sent, encode_chunked=is_chunked)
    except (BrokenPipeError, ConnectionResetError, ConnectionAbortedError) as error:
        # A server may refuse an upload and close the connection; its reply can still be read.
        try:
            return connection.getresponse()
        except (OSError, HTTPException):
            raise error from None
    return connection.getresponse()


def _explained(
    error: Exception, line: _Line, address: Address, cancel: Optional[Cancellation]
) -> ClientError:
    where = address.where
    if cancel is not None and cancel.is_set:
        return ClientError(_("Stopped."), "cancelled")
    if line.is_late or isinstance(error, socket.timeout):
        if not line.is_connected:
            return _nobody(address)
        message = _("The server at {where} has not answered in time. Try again later.")
        return ClientError(message.format(where=where), "timeout")
    if isinstance(error, ssl.SSLCertVerificationError):
        message = _(
            "The certificate of {where} is not trusted ({why}): check the address, or choose the "
            "certificate of your hospital; nothing was sent."
        )
        message = message.format(where=where, why=error.verify_message)
        return ClientError(message, "unreachable", NOT_TRUSTED)
    if isinstance(error, ssl.SSLError):
        message = _("No secure connection to {where}: does its address begin with http://?")
        return ClientError(message.format(where=where), "unreachable")
    if not line.is_connected:
        return _nobody(address)
    if isinstance(error, IncompleteRead):
        return half_a_reply()
    if isinstance(error, OSError):
        message = _("The server at {where} hung up: is it still running?")
        return ClientError(message.format(where=where), "unreachable")
    return not_radfound(address)


def _nobody(address: Address) -> ClientError:
    hint = _("is the server running?") if address.is_local else _("is the address right?")
    message = _("No server at {where}: {hint}")
    return ClientError(message.format(where=address.where, hint=hint), "unreachable")
