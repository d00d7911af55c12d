"""Lakehouse storage: byte-exact landing, a catalog of snapshots, promotion by SQL."""
