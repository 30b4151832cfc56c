"""The server's routes: RadFound's own, and those of MONAI Label that it answers differently."""

from .folders import Folders
from .install import install_routes

__all__ = ["Folders", "install_routes"]
