"""What the registry answers when something named does not exist, or already does."""


class NotFound(LookupError):
    """Nothing is stored under that name; the message says what was looked for."""


class UnknownPopulation(NotFound):
    """No population has that name."""


class UnknownPlan(NotFound):
    """No plan archive with that digest was added."""


class UnknownTask(NotFound):
    """No task has that id."""


class UnknownRound(NotFound):
    """No round has that id."""


class UnknownModel(NotFound):
    """The task has no model of that round."""


class AlreadyExists(ValueError):
    """That name is taken."""


class UnusableDatabase(RuntimeError):
    """The database cannot be opened; the message says why and what to do."""


class DatabaseUnavailable(RuntimeError):
    """The database is not there, or did not answer or finish in its time.

    A transaction that only read or that failed before its commit has changed
    nothing. One that was cut off while it committed may have taken effect: who
    tries a commit again finds out, since each takes effect at most once.
    """
