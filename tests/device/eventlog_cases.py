# Runs on CPython and on MicroPython: the event log and its lines for a log server.
import os

from sekisho import eventlog, syslog

NOW = [1767265200]
DEVICE = bytes(range(16))


def start(folder: str) -> None:
    eventlog.PATH = folder + "/events"


def log(fresh=True, **options):
    if fresh:
        for number in (0, 1):
            try:
                os.remove("%s.%d" % (eventlog.PATH, number))
            except OSError:
                pass
    return eventlog.Log(DEVICE, lambda: (NOW[0], 1), **options)


def numbers(made, after=0):
    return [entry[0] | entry[1] << 8 for entry in made.entries(after)]


def follows(made):
    """Every kept entry follows from the one before it, up to the head."""
    before = None
    for entry in made.entries():
        if before is not None:
            assert eventlog.chain(before, entry[:32]) == entry[32:]
        before = entry[32:]
    assert before == made.hash


def test_entries_are_numbered_chained_and_found_again_after_a_restart():
    made = log()
    assert (made.number, made.hash) == (0, eventlog.origin(DEVICE))
    for value in range(5):
        assert made.append(eventlog.SETTINGS, 0, value, b"d" * 40)
    head = (made.number, made.hash)
    made = log(fresh=False)
    assert (made.number, made.hash) == head
    assert made.append(eventlog.START)
    assert numbers(made) == [1, 2, 3, 4, 5, 6]
    assert numbers(made, 4) == [5, 6]
    follows(made)


def test_it_is_bounded_and_keeps_the_newest():
    made = log()
    for value in range(3 * eventlog.ENTRIES + 5):
        made.append(eventlog.SETTINGS, 0, value)
        if value % 50 == 0:
            made = log(fresh=False)
    kept = numbers(made)
    assert kept[-1] == 3 * eventlog.ENTRIES + 5
    assert kept == list(range(2 * eventlog.ENTRIES + 1, 3 * eventlog.ENTRIES + 6))
    follows(made)
    assert len(made.export()) <= 2 * 64 * (eventlog.ENTRIES + 1)
    assert os.stat(eventlog.PATH + ".0")[6] <= 64 * (eventlog.ENTRIES + 1)


def test_strangers_cannot_fill_it():
    made = log()
    made.append(eventlog.INSTALLED, 0, 7)
    assert made.append(eventlog.ORDER_REFUSED, 5, 0, b"one")
    assert not made.append(eventlog.ORDER_REFUSED, 5, 0, b"one")  # the same again
    for value in range(1000):
        made.append(eventlog.ORDER_REFUSED, 5, 0, b"%d" % value)
    assert made.number == 1 + eventlog.MAX_UNTRUSTED + 1
    events = [entry[8] for entry in made.entries()]
    assert events[0] == eventlog.INSTALLED
    assert events[-1] == eventlog.SUPPRESSED
    assert made.append(eventlog.ORDER, 0, 1)  # those with a right are still written down


def test_a_damaged_end_is_passed_over_and_the_chain_goes_on():
    made = log()
    for value in range(3):
        made.append(eventlog.SETTINGS, 0, value)
    with open(eventlog.PATH + ".0", "ab") as file:
        file.write(b"half an entry")
    made = log(fresh=False)
    assert made.number == 3
    made.append(eventlog.START)
    made = log(fresh=False)
    assert made.number == 4
    assert numbers(made) == [1, 2, 3, 4]
    follows(made)


def test_a_log_that_cannot_be_read_begins_anew_and_says_so():
    made = log()
    made.append(eventlog.SETTINGS)
    for content in (b"x" * 200, b"SKE1" + bytes(200)):
        with open(eventlog.PATH + ".0", "wb") as file:
            file.write(content)
        made = log(fresh=False)
        assert [entry[8] for entry in made.entries()] == [eventlog.LOG_LOST]


def test_without_a_file_system_nothing_breaks():
    path, eventlog.PATH = eventlog.PATH, eventlog.PATH + "/none"
    try:
        made = log(fresh=False)
        assert not made.append(eventlog.START)
        assert made.number == 1
        assert numbers(made) == []
        assert made.export() == b""
    finally:
        eventlog.PATH = path


def test_listeners_hear_each_entry_once():
    heard = []
    made = log(tell=heard.append)
    made.append(eventlog.FAILED, 193, 8, b"m")
    assert [entry[8] for entry in heard] == [eventlog.FAILED]


def test_a_line_of_rfc_5424():
    made = log()
    made.append(eventlog.FAILED, 193, 8, b"\x01\x02")
    text = syslog.line(next(iter(made.entries())), "lamp-1")
    assert text == (
        '<108>1 2026-01-01T11:00:00Z lamp-1 sekisho - FAILED [timeQuality tzKnown="1" isSynced="1"]'
        '[meta sequenceId="1"] reason=HEALTH value=8 detail=01020000000000000000000000000000'
    )
    made.append(eventlog.INSTALLED, 0, 9)
    assert syslog.line(next(iter(made.entries(1))), "a").startswith(
        "<109>1 2026-01-01T11:00:00Z a sekisho - INSTALLED ["
    )


def test_times_of_all_kinds_of_years():
    for seconds, expected in (
        (0, "1970-01-01T00:00:00Z"),
        (951827696, "2000-02-29T12:34:56Z"),
        (1772323199, "2026-02-28T23:59:59Z"),
        (1709164800, "2024-02-29T00:00:00Z"),
        (4102444800, "2100-01-01T00:00:00Z"),
        (4107542400, "2100-03-01T00:00:00Z"),
    ):
        assert syslog.timestamp(seconds) == expected


def test_log_servers_are_named_by_url():
    from device.claims import refusal

    assert syslog.target("udp://10.0.0.7") == ("udp", "10.0.0.7", 514)
    assert syslog.target("tls://logs:99/") == ("tls", "logs", 99)
    for bad in ("http://x", "udp://", "udp://x:y", "udp://x:123456", ""):
        assert refusal(syslog.target, bad) == "SERVER", bad
