"""Install what `make test-pacs` needs from Debian: an archive and the validators of its reports.

Run as root, it installs what is missing; else it names that and fails. No installed service is started.
Needs only the standard library.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PACKAGES = {
    "orthanc": "Orthanc",
    "orthanc-dicomweb": "/usr/share/orthanc/plugins/libOrthancDicomWeb.so",
    "orthanc-gdcm": "/usr/share/orthanc/plugins/libOrthancGdcm.so",
    "dcmtk": "dsrdump",
    "dicom3tools": "dciodvfy",
    "libpixelmed-java": "/usr/share/java/pixelmed.jar",
    "default-jre-headless": "java",
    "openssl": "openssl",
}
"""Each package, and a program or file by which it is recognised."""

_POLICY = Path("/usr/sbin/policy-rc.d")


def missing() -> list[str]:
    """Return the packages that are not installed."""
    return [
        package
        for package, proof in PACKAGES.items()
        if not (Path(proof).exists() if proof.startswith("/") else shutil.which(proof))
    ]


def main() -> int:
    """Install what is missing; return the exit status."""
    packages = missing()
    if not packages:
        return 0
    install = ["apt-get", "install", "-y", "--no-install-recommends", *packages]
    if os.geteuid() or not shutil.which("apt-get"):
        print(
            f"test-pacs: not installed: {', '.join(packages)}; on Debian 12, install them with: "
            f"sudo {' '.join(install)}",
            file=sys.stderr,
        )
        return 1
    print(f"test-pacs: installing {', '.join(packages)}", file=sys.stderr)
    with _no_services():
        for command in (["apt-get", "update"], install):
            done = subprocess.run(command, capture_output=True, text=True)
            if done.returncode:
                print(done.stdout[-2000:] + done.stderr[-2000:], file=sys.stderr)
                return 1
    return 0


@contextmanager
def _no_services() -> Iterator[None]:
    """Keep the packages from starting services, which would listen on all addresses."""
    if _POLICY.exists():
        yield
        return
    _POLICY.write_text("#!/bin/sh\nexit 101\n")
    _POLICY.chmod(0o755)
    try:
        yield
    finally:
        _POLICY.unlink()


if __name__ == "__main__":
    sys.exit(main())
