"""The demo: its data, where its project lies, and its runner."""
