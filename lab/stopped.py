"""A command or job that was stopped: apart from errors, for it is needed before anything is imported."""

STOPPED_CODE = 130
STOPPED = "stopped; the same command goes on from what is finished"


class Cancelled(BaseException):
    """Somebody asked a job to stop. It is not an error: nothing that catches errors may swallow it.

    What is on disk is whole; the same settings go on from there.
    """
