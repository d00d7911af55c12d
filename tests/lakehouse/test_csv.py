from __future__ import annotations

import csv as stdlib_csv
import gzip
import io
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lakehouse.errors import InputError, SettingsError
from lakehouse.formats.csv import (
    Chunk,
    Dialect,
    Tiles,
    chunks,
    column_names,
    first_record,
    read_chunk,
    sniff,
    split_fields,
)

BOM = b"\xef\xbb\xbf"
BARE = Dialect(header=False)


class Tile(NamedTuple):
    is_record: bool
    line: int
    offset: int
    length: int
    body_start: int
    body_length: int
    error: str | None
    payload: bytes


# The oracle: one byte after the other, as the design says it.


def line_end(data: bytes, at: int) -> int:
    """Return the length of the line end at a position, 0 if there is none."""
    if data[at : at + 2] == b"\r\n":
        return 2
    return int(data[at : at + 1] in (b"\n", b"\r"))


def line_number(data: bytes, at: int) -> int:
    return 1 + sum(line_end(data, i) > 0 for i in range(at) if data[i : i + 2] != b"\r\n")


def next_line_end(data: bytes, start: int, stop: int) -> int | None:
    for i in range(start, min(stop + 1, len(data))):
        if line_end(data, i) > 0:
            return i + line_end(data, i)
    return None


class Walk:
    """The state machine over one record."""

    def __init__(self, data: bytes, start: int, dialect: Dialect, *, quotes: bool) -> None:
        self.fields: list[bytes | None] = []
        self.wrong: int | None = None
        self.inside_before = [False]  # by bytes consumed: is the state "inside quotes"?
        self.opened_before: list[int | None] = [None]
        delimiter, quote = ord(dialect.delimiter), ord(dialect.quote) if quotes else -1
        state, content, quoted, opened = "start", bytearray(), False, None
        i = start
        while i < len(data):
            byte = data[i]
            outside = state != "inside"
            if outside and byte in b"\r\n":
                break
            if outside and byte == delimiter:
                self.fields.append(bytes(content) if content or quoted else None)
                state, content, quoted = "start", bytearray(), False
            elif state == "start" and byte == quote:
                state, quoted, opened = "inside", True, i
            elif state == "inside" and byte == quote:
                state = "closed"
            elif state == "closed" and byte == quote:
                state = "inside"
                content.append(byte)
            else:
                if state == "closed" and self.wrong is None:
                    self.wrong = len(self.fields) + 1
                state = state if state == "inside" else "plain"
                content.append(byte)
            i += 1
            self.inside_before.append(state == "inside")
            self.opened_before.append(opened)
        self.fields.append(bytes(content) if content or quoted else None)
        self.end = i
        self.endless = state == "inside"


def encoding_fault(data: bytes, start: int, end: int) -> str | None:
    if b"\0" in data[start:end]:
        return f"NUL byte at offset {data.index(0, start)}"
    try:
        data[start:end].decode()
    except UnicodeDecodeError as error:
        return f"invalid UTF-8 at offset {start + error.start}"
    return None


def oracle(  # noqa: C901 - one state machine, to be read from top to bottom
    data: bytes, dialect: Dialect, width: int, limit: int
) -> tuple[list[Tile], list[tuple[bytes | None, ...]]]:
    tiles: list[Tile] = []
    rows: list[tuple[bytes | None, ...]] = []
    utf16 = data[:2] in (b"\xff\xfe", b"\xfe\xff")
    base = 3 if data.startswith(BOM) else 0
    header_due = dialect.header and not utf16

    def add(start: int, end: int, body_end: int, reason: str | None, fields: list[bytes | None]) -> None:
        nonlocal header_due
        body_start = start
        if base and start == base and dialect.header:
            start = 0
        is_record = body_end > body_start
        is_header = is_record and header_due
        header_due = header_due and not is_header
        line = line_number(data, start)
        if is_record:
            reason = "looks like UTF-16" if utf16 else reason or encoding_fault(data, body_start, body_end)
            if reason is None and wrong is not None:
                reason = f"text after a closing quote, field {wrong}"
            if reason is None and len(fields) != width and not is_header:
                reason = f"{len(fields)} field{'s' * (len(fields) != 1)}, expected {width}"
            if reason is None and is_header:
                is_record = False
            elif reason is None:
                rows.append(tuple(fields))
            else:
                reason = f"line {line}, offset {start}: {reason}"
        tiles.append(
            Tile(
                is_record,
                line,
                start,
                end - start,
                body_start - start,
                body_end - body_start,
                reason if is_record else None,
                data[start:end],
            )
        )

    at = base
    if base and (not dialect.header or len(data) == base):
        tiles.append(Tile(False, 1, 0, 3, 3, 0, None, BOM))
    while at < len(data):
        walk = Walk(data, at, dialect, quotes=not utf16)
        wrong = walk.wrong
        if not walk.endless and walk.end - at <= limit:
            end = walk.end + line_end(data, walk.end)
            add(at, end, walk.end, None, walk.fields)
            at = end
            continue
        stop = min(at + limit, len(data))
        if walk.inside_before[stop - at]:
            quote = walk.opened_before[stop - at]
            assert quote is not None
            found = next_line_end(data, quote, stop)
            if found is not None or stop == len(data):
                end = len(data) if found is None else found
                body = data[at:end]
                trimmed = 2 if body.endswith(b"\r\n") else int(body.endswith((b"\n", b"\r")))
                reason = f"quote opened at line {line_number(data, quote)} is never closed"
                add(at, end, end - trimmed, reason + (f" within {limit} bytes" if stop < len(data) else ""), [])
                at = end
                continue
        reason = f"longer than {limit} bytes"
        add(at, stop, stop, reason, [])
        at = stop
        while True:
            end = next_line_end(data, at, at + limit)
            if end is not None:
                add(at, end, end - (2 if data[at:end].endswith(b"\r\n") else 1), reason, [])
                at = end
                break
            end = min(at + limit, len(data))
            add(at, end, end, reason, [])
            at = end
            if at == len(data):
                break
    return tiles, rows


# What the module says.


def as_tiles(tiles: Tiles) -> list[Tile]:
    columns = (
        tiles.is_record, tiles.line, tiles.offset, tiles.length, tiles.body_start, tiles.body_length,
    )  # fmt: skip
    for column in columns:
        assert len(column) == len(tiles.ok) == len(tiles.error) == len(tiles.payload)
    assert [bool(ok) for ok in tiles.ok] == [error is None for error in tiles.error.to_pylist()]
    lists = [column.tolist() for column in columns]
    return [Tile(*row) for row in zip(*lists, tiles.error.to_pylist(), tiles.payload.to_pylist(), strict=True)]


def as_rows(tiles: Tiles) -> list[tuple[bytes | None, ...]]:
    for field in tiles.fields:
        field.validate(full=True)
        assert field.type == pa.string()
    return list(zip(*(field.cast(pa.binary()).to_pylist() for field in tiles.fields), strict=True))


class Dribble(io.RawIOBase):
    """A stream that gives fewer bytes than it is asked for."""

    def __init__(self, data: bytes) -> None:
        self.inner = io.BytesIO(data)

    def read(self, size: int = -1) -> bytes:
        return self.inner.read(min(size, 2))


def read_all(
    data: bytes, dialect: Dialect, width: int, stream: Any = None, **sizes: int
) -> tuple[list[Tile], list[tuple[bytes | None, ...]]]:
    tiles, rows, seen = [], [], False
    for chunk in chunks(stream or io.BytesIO(data), dialect, **sizes):
        assert not seen
        seen = chunk.last
        read = read_chunk(chunk, dialect, width)
        tiles += as_tiles(read)
        rows += as_rows(read)
    assert seen == bool(data)
    assert b"".join(tile.payload for tile in tiles) == data
    return tiles, rows


def only(data: bytes, dialect: Dialect = BARE, width: int = 1) -> Tiles:
    [chunk] = chunks(io.BytesIO(data), dialect)
    return read_chunk(chunk, dialect, width)


PIECES = [b'"', b'"', b'""', b",", b",", b"\r", b"\n", b"\r\n", b"a", b"bc", "é".encode(), b"\x00", b"\xff", b"\xe2\x82", BOM]  # fmt: skip
ugly = st.builds(
    lambda start, parts: start + b"".join(parts),
    st.sampled_from([b"", b"", b"", BOM, b"\xff\xfe"]),
    st.lists(st.sampled_from(PIECES), max_size=40),
)
tame = st.lists(st.sampled_from([b'"', b'"', b",", b"\r", b"\n", b"a", b'"a"', b'"\n",', b'a,"b"\n']), max_size=60).map(
    b"".join
)


@settings(max_examples=600, deadline=None)
@given(
    st.one_of(ugly, tame),
    st.booleans(),
    st.integers(1, 3),
    st.integers(1, 9),
    st.one_of(st.integers(1, 12), st.just(1000)),
)
@example(b'a,"b\nc\n"d"\n', False, 2, 1, 1000)
@example(b'"aaaaaaa\r\n"', False, 1, 3, 8)
@example(b'"aaaaaaaaaaaa\r\nb', False, 1, 3, 8)
@example(b"aaaaaaaa\r\nb", False, 1, 9, 8)
@example(b"\n\n\n\n\n\na\nb\n", True, 1, 1, 2)
@example(BOM + b'"a\nb\n', True, 1, 1, 1000)
def test_tiles_and_fields_are_what_a_byte_by_byte_reading_gives_whatever_the_chunk_size(
    data: bytes, header: bool, width: int, chunk_bytes: int, limit: int
) -> None:
    dialect = Dialect(header=header)
    expected = oracle(data, dialect, width, limit)
    assert read_all(data, dialect, width, chunk_bytes=chunk_bytes, max_record_bytes=limit) == expected
    assert read_all(data, dialect, width, chunk_bytes=1 << 16, max_record_bytes=limit) == expected


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from([b"a,b\n", b'"a","b"\r\n', b'"a\n\n","b""c"\n', b'a"b,c\r', b'"x', b"\n", b"aaaaaaa" * 9, "é,\n".encode()]), max_size=300).map(b"".join),
    st.integers(1, 2000),
    st.sampled_from([70, 300, 100_000]),
)  # fmt: skip
def test_larger_files_agree_with_the_oracle(data: bytes, chunk_bytes: int, limit: int) -> None:
    assert read_all(data, BARE, 2, chunk_bytes=chunk_bytes, max_record_bytes=limit) == oracle(data, BARE, 2, limit)


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.lists(st.text(alphabet='ab ,;\t"\r\né€', max_size=5), min_size=3, max_size=3), max_size=20),
    st.sampled_from(",;\t| x"),
    st.sampled_from("\"'"),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.integers(1, 40),
)
def test_what_the_standard_library_writes_is_read_back(
    rows: list[list[str]], delimiter: str, quote: str, end: str, chunk_bytes: int
) -> None:
    text = io.StringIO(newline="")
    # The writer does not quote a line end that is not its own.
    folded = any(char in field for row in rows for field in row for char in "\r\n")
    quoting = stdlib_csv.QUOTE_ALL if folded else stdlib_csv.QUOTE_MINIMAL
    writer = stdlib_csv.writer(text, delimiter=delimiter, quotechar=quote, lineterminator=end, quoting=quoting)
    writer.writerows(rows)
    dialect = Dialect(delimiter, quote, header=False)
    tiles, read = read_all(text.getvalue().encode(), dialect, 3, chunk_bytes=chunk_bytes)
    assert [[(field or b"").decode() for field in row] for row in read] == rows
    assert all(tile.error is None for tile in tiles)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from([bytes([b]) for b in (0x41, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xC1, 0xC2, 0xDF, 0xE0, 0xE1, 0xED, 0xEE, 0xEF, 0xF0, 0xF1, 0xF4, 0xF5, 0xFF, 0x0A)]), max_size=60).map(b"".join))  # fmt: skip
def test_invalid_utf8_is_found_where_a_decoder_stops(data: bytes) -> None:
    data = b"x" + data
    assert read_all(data, BARE, 1) == oracle(data, BARE, 1, 1000)


def test_mixed_line_ends_and_the_last_record_without_one() -> None:
    tiles = only(b"a,b\nc,d\r\ne,f\rg,h", width=2)
    assert as_rows(tiles) == [(b"a", b"b"), (b"c", b"d"), (b"e", b"f"), (b"g", b"h")]
    assert tiles.line.tolist() == [1, 2, 3, 4]
    assert tiles.body_length.tolist() == [3, 3, 3, 3]
    assert tiles.length.tolist() == [4, 5, 4, 3]


@pytest.mark.parametrize("chunk_bytes", range(1, 9))
def test_a_line_end_of_two_bytes_is_one_end_in_every_cut(chunk_bytes: int) -> None:
    tiles, _ = read_all(b"a\r\nb\r\n\r\nc", BARE, 1, chunk_bytes=chunk_bytes)
    assert [(tile.line, tile.is_record, tile.payload) for tile in tiles] == [
        (1, True, b"a\r\n"),
        (2, True, b"b\r\n"),
        (3, False, b"\r\n"),
        (4, True, b"c"),
    ]


def test_null_is_an_unquoted_empty_field_only() -> None:
    assert as_rows(only(b'a,,""\n,"",\n', width=3)) == [(b"a", None, b""), (None, b"", None)]


def test_quotes() -> None:
    data = b'"a,""b""\r\nc",5\'10",a""b\n"""","""""",x\n'
    assert as_rows(only(data, width=3)) == [(b'a,"b"\r\nc', b"5'10\"", b'a""b'), (b'"', b'""', b"x")]


def test_reasons_name_line_and_offset() -> None:
    data = b'a,b\n1\n"x\ny",2\n1,2,3\n"a"b,2\n\xff,1\n\x00,1\n1,2\n'
    tiles = only(data, width=2)
    assert tiles.error.to_pylist() == [
        None,
        "line 2, offset 4: 1 field, expected 2",
        None,
        "line 5, offset 14: 3 fields, expected 2",
        "line 6, offset 20: text after a closing quote, field 1",
        "line 7, offset 27: invalid UTF-8 at offset 27",
        "line 8, offset 31: NUL byte at offset 31",
        None,
    ]
    assert as_rows(tiles) == [(b"a", b"b"), (b"x\ny", b"2"), (b"1", b"2")]


def test_a_quote_that_is_never_closed_costs_its_line_only() -> None:
    tiles = only(b'1,a\n2,"b\n3,c\n4,d\n', width=2)
    assert as_rows(tiles) == [(b"1", b"a"), (b"3", b"c"), (b"4", b"d")]
    assert tiles.error[1].as_py() == "line 2, offset 4: quote opened at line 2 is never closed"
    assert tiles.payload[1].as_py() == b'2,"b\n'


def test_an_unclosed_quote_after_a_field_of_several_lines_ends_with_its_own_line() -> None:
    tiles = only(b'"a\nb","c\nd,e\n', width=2)
    assert tiles.payload.to_pylist() == [b'"a\nb","c\n', b"d,e\n"]
    assert tiles.error[0].as_py() == "line 1, offset 0: quote opened at line 2 is never closed"


def test_ten_thousand_unclosed_quotes_take_linear_time() -> None:
    block = b'0,"a\n' + b"1,abcdefgh\n" * 12
    start = time.perf_counter()
    tiles, rows = read_all(block * 10_000, BARE, 2, max_record_bytes=100)
    assert time.perf_counter() - start < 15
    assert len(rows) == 120_000
    assert sum(tile.error is not None for tile in tiles) == 10_000


def test_pairs_of_stray_quotes_take_linear_time_and_need_no_faults() -> None:
    data = b'1,5" pipe\n2,"a\n3,"b"\n' * 10_000
    start = time.perf_counter()
    [chunk] = chunks(io.BytesIO(data), BARE)
    tiles = read_chunk(chunk, BARE, 2)
    assert time.perf_counter() - start < 5
    assert not chunk.faults
    assert as_tiles(tiles)[:300] == oracle(data[:9000], BARE, 2, 1 << 20)[0][:300]


def test_a_line_without_end_comes_in_bounded_pieces() -> None:
    data = b"a,b\n" + b"x" * 1000 + b"\nc,d\n"
    tiles, rows = read_all(data, BARE, 2, chunk_bytes=16, max_record_bytes=300)
    assert [tile.length for tile in tiles] == [4, 300, 300, 300, 101, 4]
    assert {tile.line for tile in tiles[1:5]} == {2}
    assert rows == [(b"a", b"b"), (b"c", b"d")]


def test_chunks_hold_no_more_than_they_may() -> None:
    data = (b"x" * 5000 + b"\n") + b'"' + b"y\n" * 9000
    for chunk in chunks(io.BytesIO(data), BARE, chunk_bytes=100, max_record_bytes=1000):
        assert len(chunk.data) <= 1102


def test_a_stream_may_give_less_than_asked() -> None:
    data = b'a,b\r\n"c\r\n",d\r\n' * 20
    assert read_all(data, BARE, 2, stream=Dribble(data), chunk_bytes=7) == oracle(data, BARE, 2, 1000)


def test_nothing_and_next_to_nothing() -> None:
    assert list(chunks(io.BytesIO(b""), BARE)) == []
    header = only(b"a,b\r\n", Dialect(), 2)
    assert as_tiles(header) == [Tile(False, 1, 0, 5, 0, 3, None, b"a,b\r\n")]
    assert [len(field) for field in header.fields] == [0, 0]
    assert as_tiles(only(BOM)) == [Tile(False, 1, 0, 3, 3, 0, None, BOM)]
    assert as_tiles(only(BOM, Dialect())) == [Tile(False, 1, 0, 3, 3, 0, None, BOM)]


def test_byte_order_mark_belongs_to_the_header_or_stands_alone() -> None:
    assert as_tiles(only(BOM + b"a\n1\n", Dialect()))[0] == Tile(False, 1, 0, 5, 3, 1, None, BOM + b"a\n")
    bare = only(BOM + b'"a"\n1\n')
    assert [(tile.is_record, tile.line, tile.payload) for tile in as_tiles(bare)] == [
        (False, 1, BOM),
        (True, 1, b'"a"\n'),
        (True, 2, b"1\n"),
    ]
    assert as_rows(bare) == [(b"a",), (b"1",)]


def test_utf16_lands_as_malformed_lines() -> None:
    data = 'a,"b\nc,d\n'.encode("utf-16")
    tiles, rows = read_all(data, Dialect(), 2, chunk_bytes=3)
    assert rows == []
    assert [tile.error for tile in tiles if tile.is_record] == [
        f"line {line}, offset {offset}: looks like UTF-16" for line, offset in ((1, 0), (2, 11), (3, 19))
    ]


def test_payload_shares_the_memory_of_the_chunk() -> None:
    data = b"a,b\n" * 1000
    [chunk] = chunks(io.BytesIO(data), BARE)
    before = pa.total_allocated_bytes()
    tiles = read_chunk(chunk, BARE, 3)
    content = tiles.payload.buffers()[2]
    assert content.address == np.frombuffer(chunk.data, np.uint8).ctypes.data
    assert pa.total_allocated_bytes() - before < 200 * 1000


def test_a_chunk_made_by_hand_needs_no_faults() -> None:
    data = b'1,a\n2,"b\n3,c\n'
    by_hand = Chunk(data, offset=0, line=1, first=True, last=True)
    assert as_tiles(read_chunk(by_hand, BARE, 2)) == oracle(data, BARE, 2, 1000)[0]


def test_two_threads_read_chunks_at_the_same_time() -> None:
    data = b'1,"a,""b"\n2,5" c\n3,d,e\n' * 5000
    parts = list(chunks(io.BytesIO(data), BARE, chunk_bytes=9_999))
    with ThreadPoolExecutor(2) as pool:
        read = list(pool.map(lambda chunk: as_rows(read_chunk(chunk, BARE, 2)), parts))
    assert [row for rows in read for row in rows] == [(b"1", b'a,"b'), (b"2", b'5" c')] * 5000


def test_sizes_that_cannot_be_are_refused() -> None:
    for sizes in ({"chunk_bytes": 0}, {"max_record_bytes": 0}, {"chunk_bytes": 1 << 30}):
        with pytest.raises(SettingsError, match="can't be"):
            next(chunks(io.BytesIO(b"a"), BARE, **sizes))


# Dialects and names.


@pytest.mark.parametrize("arguments", [("é",), ("",), ("ab",), ("\n",), ('"', '"'), (",", "\r")])
def test_a_dialect_that_cannot_be_is_refused_with_a_hint(arguments: tuple[str, ...]) -> None:
    with pytest.raises(SettingsError) as caught:
        Dialect(*arguments)
    assert caught.value.hint


def test_a_dialect_survives_its_text() -> None:
    dialect = Dialect("\t", "'", header=False)
    text = dialect.to_text(["a", "é"])
    assert Dialect.from_text(text) == dialect
    assert Dialect.names_from_text(text) == ["a", "é"]
    assert Dialect.from_text(Dialect().to_text()) == Dialect()
    with pytest.raises(InputError):
        Dialect.from_text("[]")


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_sniff_finds_the_delimiter_with_the_most_consistent_count(delimiter: str) -> None:
    lines = [["name", "text", "n"], ["x", '"a;b|c,d\te\nf"', "1"], ["y", "b", "2"], ["z", "c", "3"]]
    sample = "\r\n".join(delimiter.join(line) for line in lines).encode() + b'\r\n"cut'
    assert sniff(sample) == Dialect(delimiter)
    assert sniff(BOM + sample, delimiter="x").delimiter == "x"


@pytest.mark.parametrize(
    ("sample", "known", "header"),
    [
        (b"id,name\n1,a\n", (), True),
        (b"1,a\n2,b\n", (), False),
        (b"a,2019-01-05\n", (), False),
        (b"a,2019-01-05 10:00:00\n", (), False),
        (b"a,true\n", (), False),
        (b"a,-1.5e3\n", (), False),
        (b"a,A\n", (), False),
        (b"a,\n", (), True),
        (b"2019,2020\n1,2\n", ("2019", "2020", "2021"), True),
        (b'"a\nb",c\n', (), True),
        (b"name\nx\n", (), True),
        (b"\n\nname,x\n", (), True),
        ("a,b\n".encode("utf-16"), (), False),
        (b"a,b,\n1,2,\n3,4,\n", (), True),
        (b"a,b, \r\n1,2,\r\n\r\n3,4, ", (), True),
        (b'a,b,\n1,"x,\n",\n3,"4', (), True),
        (b"a,b,\n1,2,\n3,4,5\n", (), False),
        (b"a,b,\n1,2,5", (), False),
        (b"a,b,\n1,2\n", (), True),
        (b"a,,\n1,,\n", (), False),
        (b"a,1,\n1,2,\n", (), False),
        (b"a,a,\n1,2,\n", (), False),
        (b"a,b,\n1,2,5\n", ("b", "A", "c"), True),
        (b"7,8,\n1,2,5\n", ("7", "8"), True),
        (b"a,,\n1,2,5\n", ("a",), False),
        (b",\n1,2\n", ("a",), False),
    ],
)
def test_sniff_knows_a_header(sample: bytes, known: tuple[str, ...], header: bool) -> None:
    assert sniff(sample, known=known).header is header
    assert sniff(sample, header=not header).header is not header


def test_sniff_of_one_column_or_nothing_is_a_comma() -> None:
    assert sniff(b"").delimiter == sniff(b"a\nb\n").delimiter == sniff(b'"a').delimiter == ","


def test_first_record_is_the_header_that_chunks_see() -> None:
    data = BOM + b'\r\n\n"a\n",b\r\n1,2\n'
    [chunk] = chunks(io.BytesIO(data), Dialect())
    assert first_record(data, Dialect()) == first_record(chunk, Dialect()) == b'"a\n",b'
    assert first_record(b"\n\r\n", Dialect()) is None
    assert first_record(b"a", Dialect()) == b"a"
    assert first_record(b'a,"b\nc\n', Dialect()) == b'a,"b'
    [unclosed] = chunks(io.BytesIO(b'\na,"b\nc\n'), Dialect())
    assert first_record(unclosed, Dialect()) == b'a,"b'
    assert first_record("a".encode("utf-16"), Dialect()) is None
    assert first_record(b"a" * 100_000 + b"\r\nb", Dialect()) == b"a" * 100_000


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet='ab,"é ', min_size=1, max_size=12))
def test_split_fields_agrees_with_the_oracle(text: str) -> None:
    walk = Walk(text.encode(), 0, BARE, quotes=True)
    if not walk.endless:
        assert [field.encode() for field in split_fields(text.encode(), BARE)] == [f or b"" for f in walk.fields]


@pytest.mark.parametrize(
    ("header", "width", "names"),
    [
        (None, 3, ["column_1", "column_2", "column_3"]),
        (BOM + b' a ,"b c",A', 3, ["a", "b c", "A_2"]),
        (b"a,,b", 4, ["a", "column_2", "b", "column_4"]),
        (b"a,\xff,b\x00", 3, ["a", "column_2", "column_3"]),
        (b"_line,x,_LINE", 3, ["_line_2", "x", "_LINE_3"]),
        (b"a,a_2,a,a", 4, ["a", "a_2", "a_3", "a_4"]),
        (b"column_2,", 2, ["column_2", "column_2_2"]),
        (b"a,b,c", 2, ["a", "b"]),
    ],
)
def test_column_names(header: bytes | None, width: int, names: list[str]) -> None:
    assert column_names(header, Dialect(), width) == names


def test_a_taxi_month_with_mixed_line_ends_lands_whole() -> None:
    rows = ["a,b,c\n", *(f"{i},2019-01-15 03:36:12,{i / 4}{end}" for i in range(3000) for end in ("\r\n", "\n"))]
    data = gzip.decompress(gzip.compress("".join(rows).encode()))
    tiles, read = read_all(data, Dialect(), 3, chunk_bytes=10_000)
    assert len(read) == 6000
    assert read[-1] == (b"2999", b"2019-01-15 03:36:12", b"749.75")
    assert all(tile.error is None for tile in tiles)
