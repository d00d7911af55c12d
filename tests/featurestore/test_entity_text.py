"""Entities as they are typed: every type of key, several of them, and what is refused."""

from __future__ import annotations

import datetime as dt
import re
from decimal import Decimal
from typing import Any

import pytest

from featurestore.codec import KeyCodec
from featurestore.entity_text import entity_rows
from featurestore.testing.values import KEY_TYPES
from lakehouse.errors import RequestError


@pytest.mark.parametrize(
    ("type_", "text", "value"),
    [
        ("BIGINT", "132", 132),
        ("BIGINT", "-9223372036854775808", -(2**63)),
        ("INTEGER", "+7", 7),
        ("SMALLINT", "007", 7),
        ("TINYINT", "-1", -1),
        ("VARCHAR", "007", "007"),
        ("VARCHAR", " a=b ", " a=b "),
        ("BOOLEAN", "true", True),
        ("BOOLEAN", "FALSE", False),
        ("DECIMAL(10,2)", "1.5", Decimal("1.5")),
        ("DECIMAL(38,0)", "9" * 38, Decimal("9" * 38)),
        ("DATE", "2024-02-29", dt.date(2024, 2, 29)),
        ("TIMESTAMP", "2024-01-01 12:30:00.000001", dt.datetime.fromisoformat("2024-01-01T12:30:00.000001")),
        ("TIMESTAMP WITH TIME ZONE", "2024-01-01T12:00:00Z", dt.datetime(2024, 1, 1, 12, tzinfo=dt.UTC)),
        ("TIMESTAMP WITH TIME ZONE", "2024-01-01 12:00", dt.datetime(2024, 1, 1, 12, tzinfo=dt.UTC)),
        ("BLOB", "00ff", b"\x00\xff"),
    ],
)
def test_every_type(type_: str, text: str, value: Any):
    (row,) = entity_rows([f"k={text}"], {"k": type_})
    assert row == {"k": value}
    assert type(row["k"]) is type(value)


def test_a_key_may_have_the_sign_in_its_name():
    types = {"a": "VARCHAR", "a=b": "VARCHAR", "=": "BIGINT"}
    assert entity_rows(["a=c", "a=b=d=", "==1"], types) == [{"a": "c", "a=b": "d=", "=": 1}]


@pytest.mark.parametrize("type_", KEY_TYPES)
def test_every_type_of_key_can_be_typed(type_: str):
    texts = {"BOOLEAN": "true", "DATE": "2024-01-01", "BLOB": "00"}
    text = "2024-01-01 00:00:00" if type_.startswith("TIMESTAMP") else texts.get(type_, "0")
    (row,) = entity_rows([f"k={text}"], {"k": type_})
    assert KeyCodec([type_]).encode_one([row["k"]])
    assert entity_rows(["k="], {"k": type_}) == [{"k": None}]


@pytest.mark.parametrize(
    ("type_", "text"),
    [
        ("BIGINT", "x"), ("BIGINT", "1.5"), ("BIGINT", "1e3"), ("BIGINT", "0x1"), ("BIGINT", "-"), ("BIGINT", "1_000"), ("BIGINT", "١٢"), ("BIGINT", " 1"),
        ("BOOLEAN", "yes"), ("BOOLEAN", "1"), ("DECIMAL(10,2)", "x"),
        ("DECIMAL(10,2)", "NaN"), ("DECIMAL(10,2)", "Infinity"), ("DECIMAL(10,2)", "1_0"), ("DECIMAL(10,2)", "."), ("DECIMAL(10,2)", "1e5"), ("DATE", "2024-02-30"),
        ("DATE", "today"), ("TIMESTAMP", "noon"), ("TIMESTAMP", "2024-01-01T00:00:00+02:00"),
        ("TIMESTAMP WITH TIME ZONE", "noon"),
        ("TIMESTAMP WITH TIME ZONE", "2024-01-01T00:00:00.0000001Z"), ("TIMESTAMP", "2024-01-01T00:00:00.1234567"),
        ("BLOB", "0"), ("BLOB", "xx"),
    ],
)  # fmt: skip
def test_what_is_not_of_its_type(type_: str, text: str):
    with pytest.raises(RequestError) as error:
        entity_rows([f"k={text}"], {"k": type_})
    assert f"k: {text!r} is not of type {type_}\n  Write it in " in str(error.value)
    # What it says to write can be written.
    forms = re.findall(r"[-:.\d]+T?[:\d]*Z?|true|00ff", str(error.value).partition("Write it in ")[2])
    assert len(entity_rows([f"k={forms[0].rstrip('.')}"], {"k": type_})) == 1


def test_several_entities():
    types = {"zone": "BIGINT", "day": "DATE"}
    assert entity_rows(["zone=1", "zone=2", "zone=", "day=2024-01-01"], types) == [
        {"zone": zone, "day": dt.date(2024, 1, 1)} for zone in (1, 2, None)
    ]
    assert entity_rows(["zone=1", "day=2024-01-01", "zone=2", "day=2024-01-02"], types) == [
        {"zone": 1, "day": dt.date(2024, 1, 1)},
        {"zone": 2, "day": dt.date(2024, 1, 2)},
    ]
    assert entity_rows([], {}) == [{}]


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["zone=1"], r"day is missing\n  Add it: day=VALUE \(DATE\)"),
        (["zoen=1", "day=2024-01-01"], r"no join key 'zoen'.*\n  Did you mean zone"),
        (["=1", "zone=1", "day=2024-01-01"], r"no join key ''"),
        (["zone=1", "zone=2", "zone=3", "day=2024-01-01", "day=2024-01-02"], r"day has 2 values, another key has 3"),
    ],
)
def test_what_is_refused(texts: list[str], message: str):
    with pytest.raises(RequestError, match=message):
        entity_rows(texts, {"zone": "BIGINT", "day": "DATE"})


def test_features_of_everybody_take_no_key():
    with pytest.raises(RequestError) as error:
        entity_rows(["zone=1"], {})
    assert "no join key 'zone'" in str(error.value)
    assert "yet" not in str(error.value)
    assert "describe everybody: leave zone=1 out" in str(error.value)
