"""asynctrace beside its anchors, as ratios inside one run: ``python -m benchmarks``."""
