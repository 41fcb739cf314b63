"""Everything that the server keeps in its database, by concept."""

from sqlalchemy import Engine

from server.storage.clocks import Clock
from server.storage.leases import Leases
from server.storage.models import Models
from server.storage.participations import Participations
from server.storage.plans import Plans
from server.storage.populations import Populations
from server.storage.rounds import Rounds
from server.storage.session_shapes import SessionShapes
from server.storage.tasks import Tasks


class Registry:
    """The parts of one database; all may be used by many threads at once.

    Args:
        engine: From `open_database`.
        clock: Instead of the database's own, where it has one, or the machine's.
    """

    def __init__(self, *, engine: Engine, clock: Clock | None = None) -> None:
        self.leases = Leases(engine=engine, clock=clock)
        self.populations = Populations(engine=engine, clock=clock)
        self.plans = Plans(engine=engine, clock=clock)
        self.tasks = Tasks(engine=engine, clock=clock)
        self.rounds = Rounds(engine=engine, clock=clock)
        self.participations = Participations(engine=engine)
        self.models = Models(engine=engine)
        self.session_shapes = SessionShapes(engine=engine)
