"""The validators of Debian: dciodvfy of dicom3tools, PixelMed's, and dcmtk's dsrdump."""

import subprocess

_JARS = ":".join(f"/usr/share/java/{name}.jar" for name in ("pixelmed", "vecmath", "commons-codec"))
_LIMITS = [f"-Djdk.xml.xpath{name}Limit=0" for name in ("TotalOp", "ExprOp", "ExprGrp")]
_PIXELMED = [
    "java", *_LIMITS, "-Xss64m", "-cp", _JARS, "com.pixelmed.validate.DicomSRValidator",
]  # fmt: skip


def _output(*command):
    done = subprocess.run(list(map(str, command)), capture_output=True, timeout=300)
    return (done.stdout + done.stderr).decode("utf-8", "replace")


def dciodvfy_errors(path) -> list[str]:
    output = _output("dciodvfy", "-new", path)
    assert "EnhancedSR" in output, output
    return [line for line in output.splitlines() if line.startswith("Error")]


def pixelmed_errors(path) -> list[str]:
    output = _output(*_PIXELMED, path)
    assert "Found Root Template TID_2000" in output, output
    assert "Root Template Validation Complete" in output, output
    return [line for line in output.splitlines() if line.startswith("Error")]


def shown_by_dcmtk(path) -> str:
    return _output("dsrdump", path)
