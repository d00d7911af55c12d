"""SQL over one pinned snapshot."""

from lakehouse.session.session import Session

__all__ = ["Session"]
