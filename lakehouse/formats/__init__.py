"""One module per input format: bytes to tiles and verdicts."""
