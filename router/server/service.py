"""What all requests share."""

from __future__ import annotations

from backends import names as backend_names
from router.router import Router
from router.server.access import Callers
from router.server.admission import Bodies
from router.server.line import Line
from router.server.metrics import Metrics
from router.server.names import Names
from router.server.preparing import Preparing
from router.server.settings import Settings
from router.server.state import State


class Service:
    """A router, the settings, and the counts of what goes on; made by ``create_app``."""

    def __init__(self, router: Router, settings: Settings) -> None:
        self.router = router
        self.settings = settings
        self.names = Names(settings.name or router.model.name, backend_names())
        self.callers = Callers(settings.bound, settings.hosts, settings.origins)
        self.line = Line(settings.max_concurrency, settings.max_queue)
        self.bodies = Bodies(settings.max_body, settings.max_bodies)
        self.preparing = Preparing(router, settings)
        self.state = State(lambda: self.line.stuck)
        self.metrics = Metrics(self.names.served, settings.policy)

    def retry_after(self, code: str) -> int | None:
        """Whole seconds after which to come again, for an error that passes by itself."""
        if code == "queue_full":
            return self.line.retry_after
        return 5 if code in ("loading", "draining") else None
