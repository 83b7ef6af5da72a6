"""The HTTP service: OpenAI's interface over one router.

::

    app = create_app(Router(), Settings())     # FastAPI; its model loads when it starts
    serve(app, listen(settings, 8000))         # until a signal comes
"""

from router.server.app import create_app
from router.server.listen import listen, make_server, serve
from router.server.settings import MIB, Settings

__all__ = ["MIB", "Settings", "create_app", "listen", "make_server", "serve"]
