"""Errors a person can act on; ``exit_code`` is what the command line ends with."""


class InputError(ValueError):
    """Bad input: the message says what is wrong, the value, what is allowed, what to do next."""

    exit_code = 2


class HardwareError(RuntimeError):
    """The device at hand cannot run what was asked for."""

    exit_code = 3


class MissingDataError(InputError):
    """Files or trajectories that a step needs are not there."""

    exit_code = 4
