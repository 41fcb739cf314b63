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
