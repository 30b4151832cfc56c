"""TLS with client certificates and a bearer token in front of an archive."""

import ssl
import subprocess
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import requests


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def _pass_on(self):
        server = self.server
        length = int(self.headers.get("content-length") or 0)
        body = self.rfile.read(length) if length else None
        server.calls.append((self.command, self.path))
        if server.token and self.headers.get("authorization") != f"Bearer {server.token}":
            return self._reply(401, {}, b"")
        if server.broken and server.broken in self.path and "?" not in self.path:
            return self._reply(500, {}, b"")
        kept = ("accept", "content-type")
        headers = {name: value for name, value in self.headers.items() if name.lower() in kept}
        found = requests.request(
            self.command,
            server.archive.url + self.path,
            headers=headers,
            data=body,
            auth=(server.archive.user, server.archive.password),
            timeout=60,
        )
        self._reply(found.status_code, found.headers, found.content)

    def _reply(self, status, headers, body):
        self.send_response(status)
        self.send_header("content-type", headers.get("content-type", "text/plain"))
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = _pass_on


@contextmanager
def proxy(archive, token="", certificate=None, ca=None):
    """Run the proxy; without a certificate it speaks plain HTTP, and counts calls only."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.archive, server.token, server.calls = archive, token, []
    server.broken = ""  # the UID of a study that is listed and cannot be fetched
    server.daemon_threads = True
    scheme = "http"
    if certificate:
        scheme = "https"
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(ca)
        server.socket = context.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
    server.url = f"{scheme}://127.0.0.1:{server.server_address[1]}/dicom-web"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()


def make_certificates(folder, name):
    """A certificate authority, and a certificate with its key for this machine, in one file."""
    folder.mkdir(parents=True, exist_ok=True)
    ca, ca_key = folder / f"{name}-ca.pem", folder / f"{name}-ca.key"
    key, request, certificate = (folder / f"{name}.{end}" for end in ("key", "csr", "crt"))
    extension = folder / "san.cnf"
    extension.write_text("subjectAltName=IP:127.0.0.1\n")

    def openssl(*arguments):
        subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True)

    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
    constraints = (
        "-addext",
        "basicConstraints=critical,CA:TRUE",
        "-addext",
        "keyUsage=critical,keyCertSign",
    )
    openssl("req", "-x509", *curve, "-keyout", ca_key, "-out", ca, "-days", 2, "-subj", f"/CN={name} CA", *constraints)  # fmt: skip
    openssl("req", *curve, "-keyout", key, "-out", request, "-subj", f"/CN={name}")
    openssl("x509", "-req", "-in", request, "-CA", ca, "-CAkey", ca_key, "-CAcreateserial", "-days", 2, "-extfile", extension, "-out", certificate)  # fmt: skip
    both = folder / f"{name}.pem"
    both.write_bytes(certificate.read_bytes() + key.read_bytes())
    return ca, both
