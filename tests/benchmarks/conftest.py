"""The tiny bench of the comparison's tests, for studies too."""

from tests.lab.compare.conftest import bench

__all__ = ["bench"]
