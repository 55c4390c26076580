"""The network that all subjects share (`brainit.network.shared`), trained on simulated people."""

NAME = "shared-64"
DENOISER = "dit-64"
"""The denoiser that stage 2 trains with and evaluation paints with."""
