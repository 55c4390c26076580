"""The tiny bench of the comparison's tests and the trained run of the lab's, for studies too."""

from tests.lab.compare.conftest import bench
from tests.lab.conftest import trained_run

__all__ = ["bench", "trained_run"]
