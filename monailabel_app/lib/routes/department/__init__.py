"""What a department keeps on the server for its readers: the list of studies, and templates.

May import the service and `radfound`.
"""

from .routes import router

__all__ = ["router"]
