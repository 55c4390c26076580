"""Studies: claims of publications, timings. Each module is a command, ``python -m benchmarks.NAME``."""
