"""Structural pictures of small data sets: encoding model x prior over pictures -> posterior.

>>> from brainit.structure import fit_posterior
>>> fitted = fit_posterior(betas, pictures, "glyph-prior.safetensors")  # doctest: +SKIP
>>> fitted.decode(test_betas).picture, fitted.sample(test_betas, k=8, seed=0)  # doctest: +SKIP
"""

from brainit.structure.posterior import Decoded, PicturePosterior, fit_posterior
from brainit.structure.priors import ArrayPrior, GlyphPrior, Prior, exclude_near

__all__ = [
    "ArrayPrior",
    "Decoded",
    "GlyphPrior",
    "PicturePosterior",
    "Prior",
    "exclude_near",
    "fit_posterior",
]
