"""Results of queries: repeatable, streaming, and readable on a terminal."""

from lakehouse.result.query_result import QueryResult

__all__ = ["QueryResult"]
