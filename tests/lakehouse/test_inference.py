"""Observing, converting and widening against an oracle that looks at one value after the other."""

# ruff: noqa: DTZ001 - readings of local clocks have no zone; that is the point here

from __future__ import annotations

import datetime as dt
import decimal
import itertools
import json
import re
import struct
import threading
import zoneinfo
from dataclasses import asdict, astuple
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakehouse.errors import SettingsError
from lakehouse.inference import Observed, arrow_type, as_timezone, convert, observe, rest, widened

D = decimal.Decimal
EXACT = decimal.Context(prec=2000, Emax=decimal.MAX_EMAX, Emin=decimal.MIN_EMIN, traps=[])
EPOCH = dt.datetime(1970, 1, 1)
UTC_EPOCH = EPOCH.replace(tzinfo=dt.UTC)
MICROSECOND = dt.timedelta(microseconds=1)
ZONES = [
    "America/New_York",
    "Australia/Lord_Howe",
    "Europe/London",
    "Asia/Kathmandu",
    "UTC",
    "Pacific/Apia",
    "Africa/Casablanca",
]

BOOLEANS = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}

# --- the oracle ------------------------------------------------------------------------------------------------------


def number(text):
    """(kind, integer digits, fraction digits) or None."""
    found = re.fullmatch(r"-?(0|[1-9][0-9]*)(?:\.([0-9]+))?([eE][+-]?[0-9]+)?", text)
    if found is None:
        return None
    whole, part, power = found.groups()
    if power is not None:
        return "double", 0, 0
    if text.startswith("-") and not (whole + (part or "")).strip("0"):
        return "negative_zero", 0, 0
    if part is None and -(2**63) <= int(text) < 2**63:
        return "bigint", 0 if whole == "0" else len(whole), 0
    return "decimal", 0 if whole == "0" else len(whole), len(part or "")


def exactly_double(text):
    value = float(text)
    if abs(value) == float("inf"):
        return False
    return D(repr(value)) == EXACT.create_decimal(text)


def calendar_date(text):
    if re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text, re.ASCII) is None:
        return None
    try:
        return dt.date(int(text[:4]), int(text[5:7]), int(text[8:]))
    except ValueError:
        return None


TIME = re.compile(
    r"([ T])([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:\.([0-9]{1,6}))?)?(Z|([+-])([0-9]{2})(?::?([0-9]{2}))?)?"
)


def time(text):
    """(local datetime, offset or None) or None."""
    day, found = calendar_date(text[:10]), TIME.fullmatch(text[10:])
    if day is None or found is None:
        return None
    _, hour, minute, second, fraction, zone, sign, zone_hour, zone_minute = found.groups()
    try:
        clock = dt.time(int(hour), int(minute), int(second or 0), int((fraction or "0").ljust(6, "0")))
        away = dt.time(int(zone_hour or 0), int(zone_minute or 0))  # the same bounds as a clock's
    except ValueError:
        return None
    offset = dt.timedelta(hours=away.hour, minutes=away.minute) * (-1 if sign == "-" else 1)
    return dt.datetime.combine(day, clock), None if zone is None else offset


def zoned_instant(text):
    found = time(text)
    if found is None or found[1] is None:
        return None
    try:
        return (found[0] - found[1]).replace(tzinfo=dt.UTC)
    except OverflowError:
        return None


def observed_one(text):
    if text is None:
        return Observed()
    if text in BOOLEANS:
        return Observed(boolean=True)
    if (found := number(text)) is not None:
        kind, whole, part = found
        inexact = kind != "negative_zero" and not exactly_double(text)
        return Observed(**{kind: True}, inexact=inexact, integer_digits=whole, fraction_digits=part)
    local, offset = time(text) or (None, None)
    return Observed(
        date=calendar_date(text) is not None,
        local=local is not None and offset is None,
        zoned=zoned_instant(text) is not None,
        text=calendar_date(text) is None and (local is None or (offset is not None and zoned_instant(text) is None)),
    )


def local_instant(local, zone):
    """(instant or None, ambiguous, missing) by zoneinfo, fold = 0."""
    zone = zoneinfo.ZoneInfo(zone)
    try:
        instants = [local.replace(tzinfo=zone, fold=fold).astimezone(dt.UTC) for fold in (0, 1)]
        # A reading exists if some instant shows it.
        shows = [instant.astimezone(zone).replace(tzinfo=None, fold=0) == local for instant in instants]
    except OverflowError:
        return None, False, False
    if not any(shows):
        return None, False, True
    return instants[0], instants[0] != instants[1], False


def number_one(text, kind):
    what, whole, part = number(text) or (None, 0, 0)
    if kind == "bigint":
        return int(text) if what == "bigint" else None
    if kind == "double":
        return float(text) if what and exactly_double(text) else None
    precision, scale = (int(size) for size in kind.removeprefix("decimal(").removesuffix(")").split(","))
    fits = what in {"bigint", "decimal"} and whole <= precision - scale and part <= scale
    return EXACT.create_decimal(text) if fits else None


def timestamptz_one(text, zone):
    local, offset = time(text) or (None, None)
    if local is None or offset is not None or zone is None:
        return zoned_instant(text), False, False
    return local_instant(local, zone)


def timestamp_one(text):
    local, offset = time(text) or (None, None)
    return local if offset is None else None


def converted_one(text, kind, zone):
    """(value or None, ambiguous, missing)."""
    if kind == "timestamptz":
        return timestamptz_one(text, zone)
    readers = {
        "varchar": str,
        "boolean": BOOLEANS.get,
        "date": calendar_date,
        "timestamp": timestamp_one,
    }
    read = readers.get(kind)
    return read(text) if read else number_one(text, kind), False, False


# --- strategies ------------------------------------------------------------------------------------------------------

NASTY = [
    "", " ", "007", "-007", "+7", " 7", "7 ", " 1_000 ", "1_000", "0x1F", "1e3", "1E+3", "t", "f", "1", "0", "-0", "-0.0",
    "-0.000", "-0.5", "0.5", ".5", "5.", "-", "--1", "1-1", "1.2.3", "-.5", "1e", "e1", "1e5.0", "-0e0", "0e99999999999999",
    "nan", "inf", "-inf", "Infinity", "1e400", "-1e400", "1e-400", "5e-324", "4.9e-324", "1.7976931348623157e308", "1e23",
    "9007199254740993", "9007199254740992", "9007199254740993.0", "0.1", "0.30000000000000004", "0.10000000000000001",
    "1.5e-07", "123456789012345680000", "100000000000000000000000000000", "2.50000000000000000000000e0",
    "9223372036854775807", "9223372036854775808", "-9223372036854775808", "-9223372036854775809", "9999999999999999999",
    "1" * 38, "1" * 39, "-" + "9" * 38, "1" * 400, "0." + "1" * 38, "0." + "1" * 39, "1." + "1" * 37, "0." + "0" * 400 + "1",
    "999999999999.999999", "1000000000000", "0.1234567", "-999999999999.999999", "1.0", "1.50", "١٢", "\uff11\uff12", "1\x00", "\x001",
    "true", "True", "TRUE", "tRue", "false", "False", "FALSE", "no", "N/A", "NULL", "é", "2019-1-5", "20190105",
    "2019-01-05", "2019-02-29", "2020-02-29", "1900-02-29", "2000-02-29", "0000-01-01", "0001-01-01", "9999-12-31",
    "2019-13-01", "2019-00-10", "2019-04-31", "2019-01-05 ", "2019-01-05 10", "2019-01-05T10Z", "2019-01-05 10:11",
    "2019-01-05 10:11:12", "2019-01-05T10:11:12", "2019-01-05t10:11:12", "2019-01-05  10:11:12", "2019-01-05 24:00:00",
    "2019-06-30 23:59:60", "2019-01-05 10:11:12.1", "2019-01-05 10:11:12.", "2019-01-05 10:11:12.123456",
    "2019-01-05 10:11:12.1234567", "2019-01-05T10:11Z", "2019-01-05T10:11:12Z", "2019-01-05T10:11:12z",
    "2019-01-05T10:11:12+05:30", "2019-01-05T10:11:12+0530", "2019-01-05T10:11:12-05", "2019-01-05T10:11:12-5",
    "2019-01-05T10:11:12+24:00", "2019-01-05T10:11:12+05:60", "2019-01-05T10:11:12.5-23:59", "2019-01-05T10:11:12 Z",
    "2019-01-05 10+00:00", "2019-01-05 10:11+00", "0001-01-01 00:00:00", "0001-01-01 00:00:00+14:00", "0000-12-31 23:00:00-05:00",
    "0000-01-01 00:00:00", "9999-12-31 23:59:59.999999", "9999-12-31 23:59:59-01:00", "0001-01-01 00:00:00Z",
    "2018-11-04 01:30:00", "2018-11-04 00:59:59.999999", "2018-11-04 02:00:00", "2018-03-11 02:30", "2018-03-11 03:00",
    "1970-06-01 00:00", "2050-07-01 12:00:00", "2050-03-13 02:30:00", "1883-11-18 12:03:00", "2011-12-30 12:00:00",
]  # fmt: skip

digits = st.text("0123456789", max_size=22)
integers = st.integers(-(10**20), 10**20).map(str) | st.integers(-999, 999).map(str)
decimals = st.builds("{}.{}".format, st.integers(-(10**14), 10**14), st.text("0123456789", min_size=1, max_size=8))
doubles = st.floats(allow_nan=False, allow_infinity=False).map(repr) | st.builds(
    "{}e{}".format, decimals, st.integers(-400, 400)
)
dates = st.dates().map(str)
times = st.datetimes().map(str) | st.datetimes(dt.datetime(2017, 1, 1), dt.datetime(2021, 1, 1)).map(
    lambda at: at.isoformat(" ", "minutes")
)
zoned = st.builds(
    "{}{}".format,
    times,
    st.sampled_from(["Z", "+01:00", "-0330", "+14"])
    | st.builds("{:+03d}:{:02d}".format, st.integers(-23, 23), st.integers(0, 59)),
)
sorts = [
    integers,
    decimals,
    doubles,
    dates,
    times,
    zoned,
    st.sampled_from(["true", "FALSE", "True"]),
    st.text(max_size=6),
]


@st.composite
def mutated(draw):
    """A valid value with one byte replaced, dropped or doubled."""
    text = draw(st.one_of(*sorts))
    at = draw(st.integers(0, len(text)))
    return (
        text[:at] + draw(st.sampled_from(["", *"0123456789-+.: TZeE/;,\x00é", text[at : at + 1] * 2])) + text[at + 1 :]
    )


@st.composite
def columns(draw):
    """Mostly one sort of value, as columns are, sometimes with strangers; nulls among them."""
    main = draw(st.sampled_from(sorts))
    stranger = draw(st.sampled_from([main, main, st.sampled_from(NASTY), mutated(), st.one_of(*sorts)]))
    values = draw(st.lists(main, max_size=8)) + draw(st.lists(stranger, max_size=3))
    values += [None] * draw(st.integers(0, 2))
    return draw(st.permutations(values))


def array_of(values, before=(), after=()):
    """A slice of a longer array, so that offsets don't start at 0."""
    return pa.array([*before, *values, *after], pa.string()).slice(len(before), len(values))


def instants(array):
    """Values as Python objects; timestamps as datetimes without the help of a zone library."""
    if pa.types.is_timestamp(array.type):
        epoch = UTC_EPOCH if array.type.tz else EPOCH
        return [None if us is None else epoch + us * MICROSECOND for us in array.cast(pa.int64()).to_pylist()]
    return array.to_pylist()


def check_conversion(values, array, kind, zone):
    got = convert(array, kind, timezone=zone)
    wanted = [(None, False, False) if text is None else converted_one(text, kind, zone) for text in values]
    assert instants(got.values) == [value for value, _, _ in wanted]
    assert got.values.type == arrow_type(kind)
    got.values.validate(full=True)
    misfits = [text is not None and value is None for text, (value, _, _) in zip(values, wanted, strict=True)]
    assert (got.misfit is not None) == any(misfits)
    if got.misfit is not None:
        assert got.misfit.dtype == np.bool_
        assert got.misfit.tolist() == misfits
    assert got.ambiguous == sum(ambiguous for _, ambiguous, _ in wanted)
    assert got.missing == sum(missing for _, _, missing in wanted)
    if kind == "double":  # 0.0 == -0.0
        assert [struct.pack("d", value) for value in got.values.to_pylist() if value is not None] == [
            struct.pack("d", value) for value, _, _ in wanted if value is not None
        ]


KINDS = [
    "varchar",
    "boolean",
    "bigint",
    "decimal(18,6)",
    "decimal(38,0)",
    "decimal(38,10)",
    "decimal(38,38)",
    "double",
    "date",
    "timestamp",
]
TARGETS = [(kind, None) for kind in [*KINDS, "timestamptz"]] + [("timestamptz", zone) for zone in ZONES]

# --- the oracle agrees -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", NASTY)
def test_observes_each_trap(text):
    assert observe(pa.array([text])) == observed_one(text)


@pytest.mark.parametrize(("kind", "zone"), TARGETS)
def test_converts_the_traps_one_by_one_and_together(kind, zone):
    check_conversion(NASTY, array_of(NASTY, ["x", None], ["y"]), kind, zone)
    for text in NASTY:
        check_conversion([text, None], array_of([text, None], [None, "x"]), kind, zone)


@given(columns(), st.lists(st.sampled_from(NASTY) | st.none(), max_size=2))
@settings(max_examples=250, deadline=None)
def test_observes_as_the_oracle(values, around):
    wanted = Observed()
    for text in values:
        wanted = wanted.merge(observed_one(text))
    assert observe(array_of(values, around, around)) == wanted
    assert observe(pa.chunked_array([array_of(values[:2]), array_of(values[2:], around)])) == wanted


@given(columns(), st.sampled_from(TARGETS), st.lists(st.sampled_from(NASTY) | st.none(), max_size=2))
@settings(max_examples=500, deadline=None)
def test_converts_as_the_oracle(values, target, around):
    check_conversion(values, array_of(values, around, around), *target)


@given(columns(), st.none() | st.sampled_from(ZONES))
@settings(max_examples=250, deadline=None)
def test_the_observed_type_holds_every_value(values, zone):
    array = array_of(values)
    kind = observe(array).type(timezone=zone)
    check_conversion(values, array, kind if kind != "unknown" else "varchar", zone)
    got = convert(array, kind, timezone=zone)
    # Only the clock can refuse: readings that don't exist, or an instant beyond the calendar.
    edge = any(text is not None and text[:4] in {"0001", "9999"} for text in values)
    assert got.misfit is None or got.misfit.sum() == got.missing or (kind == "timestamptz" and edge)


# --- merging and types -----------------------------------------------------------------------------------------------

observations = columns().map(lambda values: observe(array_of(values)))


@given(observations, observations, observations)
@settings(max_examples=100, deadline=None)
def test_merging_is_order_free_and_serialisable(first, second, third):
    assert first.merge(second).merge(third) == first.merge(second.merge(third))
    assert first.merge(second) == second.merge(first)
    assert first.merge(first) == first == first.merge(Observed())
    assert (
        Observed(*json.loads(json.dumps(astuple(first)))) == first == Observed(**json.loads(json.dumps(asdict(first))))
    )


@pytest.mark.parametrize(
    ("values", "zone", "wanted"),
    [
        ([], None, "unknown"),
        ([None, None], None, "unknown"),
        ([""], None, "varchar"),
        (["true", "FALSE"], None, "boolean"),
        (["true", "1"], None, "varchar"),
        (["1", "-5"], None, "bigint"),
        (["9223372036854775808"], None, "decimal(38,0)"),
        (["1", "2.5"], None, "decimal(18,6)"),
        (["1000000000000", "2.5"], None, "decimal(38,1)"),
        (["1" * 38, "2.5"], None, "varchar"),
        (["0.1234567"], None, "decimal(38,7)"),
        (["0." + "1" * 38], None, "decimal(38,38)"),
        (["1.5", "-0.0"], None, "varchar"),
        (["1e0", "-0.0"], None, "double"),
        (["1", "2.5", "1e3"], None, "double"),
        (["9007199254740993", "1e3"], None, "varchar"),
        (["1e400"], None, "varchar"),
        (["2019-01-05"], "Europe/London", "date"),
        (["2019-01-05", "2019-01-05 10:00"], None, "varchar"),
        (["2019-01-05 10:00"], None, "timestamp"),
        (["2019-01-05 10:00"], "Europe/London", "timestamptz"),
        (["2019-01-05 10:00Z"], None, "timestamptz"),
        (["2019-01-05 10:00", "2019-01-05 10:00Z"], None, "varchar"),
        (["2019-01-05 10:00", "2019-01-05 10:00Z"], "Europe/London", "timestamptz"),
        (["1", "N/A"], None, "varchar"),
    ],
)
def test_types(values, zone, wanted):
    assert observe(pa.array(values, pa.string())).type(timezone=zone) == wanted


def test_an_unknown_column_is_null_text_and_keeps_what_comes_as_misfit():
    got = convert(pa.array([None, "x", None]), "unknown")
    assert got.values.to_pylist() == [None, None, None]
    assert got.values.type == pa.string()
    assert got.misfit.tolist() == [False, True, False]
    assert convert(pa.array([None], pa.string()), "unknown").misfit is None


@pytest.mark.parametrize("kind", ["integer", "decimal", "DATE", ""])
def test_unknown_type_names_are_refused(kind):
    with pytest.raises(ValueError):
        convert(pa.array(["1"]), kind)


def seen(*values):
    return observe(pa.array(values, pa.string()))


def test_only_bigint_widens_and_only_to_decimal():
    settled = seen("1", "20")
    assert widened("bigint", settled.merge(seen("2.5"))) == "decimal(18,6)"
    assert widened("bigint", settled.merge(seen("2.5", "N/A", "1e5"))) == "decimal(18,6)"
    assert widened("bigint", seen("1000000000000").merge(seen("2.25"))) == "decimal(38,2)"
    assert widened("bigint", settled.merge(seen("9223372036854775808"))) == "decimal(38,0)"
    assert widened("bigint", settled.merge(seen("N/A"))) is None
    assert widened("bigint", settled.merge(seen("1e5"))) is None
    assert widened("bigint", settled.merge(seen("-0.0"))) is None
    assert widened("bigint", settled.merge(seen("0." + "1" * 39))) is None
    assert widened("decimal(18,6)", seen("0.1234567")) is None
    assert widened("varchar", seen("2.5")) is None


def test_a_settled_column_nobody_remembers_widens_to_hold_any_bigint():
    kind = widened("bigint", Observed.settled("bigint").merge(seen("2.5")))
    assert kind == "decimal(38,1)"
    extremes = pa.array([str(-(2**63)), str(2**63 - 1), "2.5"])
    assert convert(extremes, kind).misfit is None
    with pytest.raises(ValueError):
        Observed.settled("varchar")


# --- time zones ------------------------------------------------------------------------------------------------------


def test_the_night_that_clocks_go_back_takes_the_earlier_instant():
    got = convert(pa.array(["2018-11-04 01:30", "2018-11-04 02:30"]), "timestamptz", timezone="America/New_York")
    assert instants(got.values)[0] == dt.datetime(2018, 11, 4, 5, 30, tzinfo=dt.UTC)
    assert (got.ambiguous, got.missing, got.misfit) == (1, 0, None)


def test_a_reading_that_never_occurs_is_a_misfit():
    got = convert(pa.array(["2018-03-11 02:30", "2018-03-11 03:30"]), "timestamptz", timezone="America/New_York")
    assert instants(got.values) == [None, dt.datetime(2018, 3, 11, 7, 30, tzinfo=dt.UTC)]
    assert (got.ambiguous, got.missing, got.misfit.tolist()) == (0, 1, [True, False])


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("year", [1847, 1883, 1918, 1970, 2011, 2018, 2037, 2038, 2100, 9998])
def test_every_half_hour_of_changing_days_is_as_zoneinfo_says(zone, year):
    """Also after 2037, where Arrow's own kernels forget daylight saving."""
    days = {
        dt.datetime(year, month, day)
        for month in (3, 4, 5, 9, 10, 11)
        for day in (1, 4, 7, 11, 14, 25, 28, 31)
        if (month, day) not in {(4, 31), (9, 31), (11, 31)}
    }
    days |= {dt.datetime(year, 12, 30), dt.datetime(year, 12, 31), dt.datetime(year, 1, 1), dt.datetime(year, 11, 18)}
    local = [
        day + dt.timedelta(minutes=30 * step)
        for day in sorted(days)
        for step in range(0, 48, 1 if day.day in {4, 7, 11, 14, 25, 28, 30, 31} else 6)
    ]
    texts = [f"{at:%Y-%m-%d %H:%M}".rjust(16, "0") for at in local]
    check_conversion(texts, pa.array(texts), "timestamptz", zone)


def test_sentinels_far_apart_convert_too():
    texts = ["0001-01-03 00:00:00", "1970-06-01 12:00:00", "2018-11-04 01:30:00", "9999-12-29 23:59:59"]
    for zone in ZONES:
        check_conversion(texts, pa.array(texts), "timestamptz", zone)


def test_no_zone_changes_twice_within_a_day():
    """`zones` looks once a day; this holds for the files of the machine's own database."""
    shortest = {}
    for name in zoneinfo.available_timezones():
        file = next((path for root in zoneinfo.TZPATH if (path := Path(root, name)).is_file()), None)
        if file is not None:
            changes = transitions(file.read_bytes())
            shortest[name] = min((later - sooner for sooner, later in itertools.pairwise(changes)), default=10**9)
    if not shortest:
        pytest.skip("this machine has no time zone files")
    assert min(shortest.values()) > 2 * 86_400


def transitions(data):
    """Instants (s) at which the offset changes, of a TZif file's 64-bit block."""
    counts = struct.unpack(">6l", data[20:44])
    is_utc, is_std, leap, times, types, letters = counts
    start = 44 + times * 5 + types * 6 + letters + leap * 8 + is_std + is_utc
    *_, times, types, _ = struct.unpack(">6l", data[start + 20 : start + 44])
    start += 44
    at = struct.unpack(f">{times}q", data[start : start + 8 * times])
    index = data[start + 8 * times : start + 9 * times]
    offsets = [
        struct.unpack(">lbb", data[start + 9 * times + 6 * n : start + 9 * times + 6 * n + 6])[0] for n in range(types)
    ]
    before = [offsets[0], *(offsets[n] for n in index)]
    return [instant for instant, n, previous in zip(at, index, before, strict=False) if offsets[n] != previous]


def test_a_zone_is_known_or_named_with_its_neighbours():
    assert as_timezone("Europe/London").key == "Europe/London"
    with pytest.raises(SettingsError, match="America/New_York"):
        as_timezone("America/NewYork")
    for name in ["", "America", "../etc/passwd", "/etc/passwd", "localtime", "right/UTC", "Nowhere/At All", "UTC\x00"]:
        with pytest.raises(SettingsError):
            as_timezone(name)


def test_conversion_refuses_an_unknown_zone_even_without_values():
    for texts in [[None], ["2019-01-05T10:00Z"], ["2019-01-05T10:00"]]:
        with pytest.raises(SettingsError):
            convert(pa.array(texts, pa.string()), "timestamptz", timezone="Mars/Olympus")


# --- _rest -----------------------------------------------------------------------------------------------------------


@given(
    st.lists(
        st.tuples(st.text(), st.lists(st.tuples(st.text() | st.none(), st.booleans()), min_size=5, max_size=5)),
        max_size=4,
    )
)
@settings(max_examples=200, deadline=None)
def test_rest_gives_back_every_misfit(drawn):
    # A misfit is a text; a null cell cannot be one.
    drawn = [
        (f"{name}{n}", [(text, text is not None and bad) for text, bad in cells])
        for n, (name, cells) in enumerate(drawn)
    ]
    given_columns = [
        (name, array_of([text for text, _ in cells], ["before"]), np.array([bad for _, bad in cells]))
        for name, cells in drawn
    ]
    got = rest(given_columns, 5)
    got.validate(full=True)
    assert got.type == pa.string()
    wanted = [[(name, cells[row][0]) for name, cells in drawn if cells[row][1]] for row in range(5)]
    assert [None if text is None else list(json.loads(text).items()) for text in got.to_pylist()] == [
        row or None for row in wanted
    ]


def test_rest_escapes_every_control_quote_and_backslash():
    text = "".join(map(chr, range(256))) + '\\"\\\\u0000\u2028\U0001f600'
    got = rest([('"na\nme"', pa.array([text]), np.array([True]))], 1)
    assert json.loads(got[0].as_py()) == {'"na\nme"': text}


def test_rest_of_nothing_is_null():
    assert rest([], 3).to_pylist() == [None, None, None]
    assert rest([], 0).to_pylist() == []


# --- threads ---------------------------------------------------------------------------------------------------------


def test_two_threads_give_what_one_gives():
    texts = pa.array([f"2018-{1 + n % 12:02d}-04 01:30:{n % 60:02d}" for n in range(5000)])
    alone = convert(texts, "timestamptz", timezone="America/New_York")
    found = []

    def work():
        got = convert(texts, "timestamptz", timezone="America/New_York")
        found.append(got.values.equals(alone.values) and observe(texts) == Observed(local=True))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 4
