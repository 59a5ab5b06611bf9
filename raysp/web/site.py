"""What the routes share: the service, its store for readers, where runs stand, and surrogates that were read."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from raysp.store import ConfinedPool
from raysp.web.access import Sessions
from raysp.web.desk import Desk, Settings
from raysp.web.lists import Lists
from raysp.web.measuring import Measuring
from raysp.web.readings import Readings
from raysp.web.surrogates import Surrogates
from raysp.web.tail import Tail

#: Queries that are answered at the same time.
QUERIES = 2


@dataclass(frozen=True)
class Site:
    """One web end."""

    settings: Settings
    desk: Desk
    sessions: Sessions
    readings: Readings
    tail: Tail
    queries: ConfinedPool
    surrogates: Surrogates
    measuring: Measuring
    lists: Lists

    @classmethod
    def of(cls, settings: Settings, desk: Desk) -> "Site":
        """The web end of a service; `close` ends its threads and processes."""
        readings = Readings(settings.store, lambda: desk.keep_open(settings.store))
        tail = Tail(desk, readings.keep)
        return cls(settings, desk, Sessions(settings.token), readings, tail, ConfinedPool(QUERIES), Surrogates(readings), Measuring(desk), Lists())

    def since(self, run_id: str | None = None) -> float:
        """How new the store has to be to show what the tail knows: of a run, or of all."""
        return self.tail.changed_at if run_id is None else self.tail.changed(run_id)

    def close(self) -> None:
        """End what belongs to this web end."""
        self.tail.close()
        self.measuring.close()
        self.readings.close()
        self.queries.close()


def site_of(request: Request) -> Site:
    """The site that a request is about."""
    return request.app.state.site


SiteOf = Annotated[Site, Depends(site_of)]
