"""The server's routes: RadFound's own, and the MONAI Label routes that RadFound replaces."""

from .folders import Folders
from .install import install_routes

__all__ = ["Folders", "install_routes"]
