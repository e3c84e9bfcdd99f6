"""The benchmarks: `python -m benchmarks` from the root of the repository. README.md tells how to read them."""
