"""Cut SQL text into tokens by position.

DuckDB's own tokenizer says where strings, dollar quotes and comments begin, so that a ``;`` inside one never cuts
a statement. Positions are byte offsets, as in DuckDB's messages.
"""

from __future__ import annotations

from dataclasses import dataclass

from lakehouse.errors import ModelError

__all__ = ["SourceText", "Token", "depths"]


@dataclass(frozen=True, slots=True)
class Token:
    """One token of SQL.

    Parameters
    ----------
    start, end
        Half-open byte range in the text; white space after the token is outside.
    text
        The token as written.
    comment
        Whether it is a comment.
    """

    start: int
    end: int
    text: str
    comment: bool

    @property
    def word(self) -> str:
        """The token in lower case if it is unquoted, else ``""``; for telling keywords."""
        return "" if self.text[0] in "\"'$" or self.comment else self.text.lower()

    @property
    def name(self) -> str:
        """The identifier that the token spells, without its quotes."""
        return self.text[1:-1].replace('""', '"') if self.text[0] == '"' else self.text


class SourceText:
    """The text of a model file, with places in it.

    Parameters
    ----------
    file
        How the user would type the file's name.
    data
        The file's bytes, UTF-8.
    """

    def __init__(self, file: str, data: bytes) -> None:
        self.file = file
        self.data = data.replace(b"\xef\xbb\xbf", b"   ", 1) if data.startswith(b"\xef\xbb\xbf") else data

    def tokens(self) -> list[Token]:
        """Return all tokens and comments, in order."""
        import duckdb

        found = duckdb.tokenize(self.data.decode())
        ends = [*(start for start, _ in found[1:]), len(self.data)]
        tokens = []
        for (start, kind), following in zip(found, ends, strict=False):
            piece = self.data[start:following].rstrip()
            comment = kind == duckdb.token_type.comment
            tokens.append(Token(start, start + len(piece), piece.decode(), comment))
        return tokens

    def words(self) -> list[str]:
        """Return the tokens but comments, keywords in lower case: another layout gives the same ones."""
        import duckdb

        kinds = duckdb.tokenize(self.data.decode())
        told = ((token, kind) for token, (_, kind) in zip(self.tokens(), kinds, strict=True) if not token.comment)
        return [token.text.lower() if kind == duckdb.token_type.keyword else token.text for token, kind in told]

    def slice(self, start: int, end: int) -> str:
        """Return the text of a half-open byte range."""
        return self.data[start:end].decode()

    def line(self, offset: int) -> int:
        """Return the 1-based line of a byte offset."""
        return self.data.count(b"\n", 0, offset) + 1

    def column(self, offset: int) -> int:
        """Return the 1-based column, in characters, of a byte offset."""
        line_start = self.data.rfind(b"\n", 0, offset) + 1
        return len(self.data[line_start:offset].decode(errors="replace")) + 1

    def error(self, what: str, offset: int | None = None, *, hint: str | None = None) -> ModelError:
        """Return the error that something at this byte offset is wrong."""
        if offset is None:
            return ModelError(what, file=self.file, hint=hint)
        return ModelError(what, file=self.file, line=self.line(offset), column=self.column(offset), hint=hint)


def depths(tokens: list[Token]) -> list[int]:
    """Return how many brackets are open around each token; a bracket itself counts as outside."""
    levels = []
    level = 0
    for token in tokens:
        if token.text in {")", "]", "}"}:
            level -= 1
        levels.append(level)
        if token.text in {"(", "[", "{"}:
            level += 1
    return levels
