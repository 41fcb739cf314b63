"""What the log says of coordinator leases: told by the coordinators that take and lose them."""

from server.telemetry.logs import event_log

_log = event_log("server.leases")


def acquired(population: str, epoch: int, *, unfinished: int) -> None:
    """The population is coordinated here; `unfinished` rounds of others were abandoned."""
    _log.info("lease_acquired", population=population, epoch=epoch, abandoned=unfinished)


def lost(population: str, epoch: int, why: str) -> None:
    """Somebody else has it, or will have it."""
    _log.warning("lease_lost", population=population, epoch=epoch, why=why)


def released(population: str, epoch: int) -> None:
    """It was given back."""
    _log.info("lease_released", population=population, epoch=epoch)
