"""For those who write a backend: generated cases, and contract suites that every backend must pass."""
