# Runs on CPython and on MicroPython: settings, policy, two-copy files and backups.
import json
import os

from sekisho import backup, policy, seal, settings, store, values
from sekisho.values import ADMIN, ORDER, USER, Settings

from device.claims import refusal

FOLDER = ""


def start(folder: str) -> None:
    global FOLDER
    FOLDER = folder
    values.KEPT = folder + "/settings"
    settings.SETTINGS = folder + "/sekisho.json"


def fresh(factory=None) -> Settings:
    """The settings of a device as it left the factory."""
    values.MIGRATIONS = ()
    for name in ("settings.0", "settings.1", "sekisho.json"):
        try:
            os.remove(FOLDER + "/" + name)
        except OSError:
            pass
    if factory is not None:
        with open(settings.SETTINGS, "w") as file:
            file.write(factory if isinstance(factory, str) else json.dumps(factory))
    return Settings()


HOME = [["home", "12345678"]]


def test_a_new_device_has_the_defaults_of_the_schema():
    made = fresh()
    assert made.all() == {line[0]: line[3] for line in values.SCHEMA}
    for line in values.SCHEMA:
        assert values.check(line[0], line[3]) == line[3]
        assert line[4] is values.KEEP or values.check(line[0], line[4]) == line[4]
    assert all(name in [line[0] for line in values.SCHEMA] for name in values.GUARDED)


def test_the_file_of_the_image_counts_until_the_first_change():
    made = fresh({"server": "http://a/", "wifi": HOME, "poll": 60})
    assert made.get("server") == "http://a/"
    assert settings.load()["server"] == "http://a"
    made.change({"poll": 90}, ADMIN)
    with open(settings.SETTINGS, "w") as file:
        file.write("{}")
    assert Settings().get("server") == "http://a/"
    assert Settings().get("poll") == 90


def test_values_out_of_range_or_of_another_type_are_refused_and_nothing_changes():
    made = fresh()
    bad = (
        ("poll", 29), ("poll", 86401), ("poll", True), ("poll", "60"), ("poll", 60.0), ("poll", None),
        ("update_enabled", 1), ("update_enabled", "yes"), ("update_start", "never"), ("update_start", 1),
        ("server", "ftp://x"), ("server", "http://"), ("server", "http:// x"), ("server", "http://x\n"), ("server", 5),
        ("server", "http://" + "x" * 300), ("wifi", [["a", "x" * 65]]), ("wifi", [["", "12345678"]]), ("wifi", [["a"]]),
        ("groups", [""]),
        ("wifi", HOME * 9), ("wifi", "home"), ("wifi", [["a" * 33, ""]]), ("notify", ["available", "available"]),
        ("notify", ["other"]), ("groups", ["x" * 33]), ("groups", [7]),
        ("update_window", "25:00-26:00"),
        ("update_window", "02:00"), ("update_window", "mon 2:00-3:00"), ("update_window", ";"),
        ("update_window", None),         ("ca", "\x00"), ("nothing", 1),
    )  # fmt: skip
    for name, value in bad:
        assert refusal(made.change, {"poll": 90, name: value}, ORDER) == "SETTING", (name, value)
    assert made.get("poll") == values.POLL
    assert store.load(values.KEPT) is None


def test_a_file_with_nonsense_leaves_the_defaults():
    for text in ("", "[1]", "{", '{"poll": "x", "wifi": {"a": 1}, "server": 5, "held": [[]]}', '{"poll": 1e999}'):
        made = fresh(text)
        assert made.all() == fresh().all(), text
    made = fresh()
    store.save(values.KEPT, b"\xff{")
    assert Settings().all() == made.all()
    store.save(values.KEPT, b'{"values": {"poll": 5}, "pending": [], "version": "x"}')
    assert Settings().get("poll") == values.POLL


def test_who_may_change_what():
    made = fresh()
    made.change({"notify": ["failed"]}, USER)
    assert refusal(made.change, {"poll": 60}, USER) == "KEY_RIGHTS"
    assert refusal(made.change, {"groups": ["a"]}, ADMIN) == "KEY_RIGHTS"
    made.change({"groups": ["a"], "held": ["poll"]}, ORDER)
    assert refusal(made.change, {"poll": 60}, ADMIN) == "KEY_RIGHTS"
    made.change({"poll": 60}, ORDER)
    assert Settings().get("poll") == 60


def test_a_change_of_server_or_network_is_kept_only_after_it_worked():
    made = fresh({"server": "http://old", "wifi": HOME})
    made.change({"server": "http://new", "poll": 60}, ADMIN)
    made = Settings()
    assert (made.get("server"), made.get("server", True), made.get("poll")) == ("http://old", "http://new", 60)
    assert settings.load()["server"] == "http://new"
    assert settings.load(trial=True)["server"] == "http://old"  # no evidence against an image
    assert [made.failed() for _ in range(2)] == [False, False]
    assert Settings().failed()  # over a restart as well
    assert Settings().get("server", True) == "http://old"
    made = Settings()
    made.change({"wifi": [["new", ""]]}, ADMIN)
    made.proved()
    assert Settings().get("wifi") == [["new", ""]]
    assert not Settings().failed()


def test_setting_what_is_set_writes_nothing():
    made = fresh()
    made.change({"poll": values.POLL}, ADMIN)
    made.restore()
    assert store.load(values.KEPT) is None


def test_restore_brings_back_the_secure_defaults_of_the_key_set_and_keeps_the_network():
    made = fresh({"server": "http://a", "wifi": HOME, "poll": 60, "interfaces": ["repl"], "update_enabled": False})
    assert refusal(made.restore, {"poll": 1}) == "SETTING"
    assert made.get("update_enabled") is False
    made.restore({"poll": 900, "a name of the future": 1})
    made = Settings()
    assert (made.get("poll"), made.get("interfaces"), made.get("update_enabled")) == (900, [], True)
    assert (made.get("server"), made.get("wifi")) == ("http://a", HOME)


def test_a_secret_that_lets_somebody_in_comes_by_order_and_never_with_an_image_or_a_key_set():
    secret = {"console_reset": "open sesame, all of you"}
    assert fresh(secret).get("console_reset") == ""
    made = fresh()
    made.restore(secret)
    assert Settings().get("console_reset") == ""
    made.change(secret, ORDER)
    assert Settings().get("console_reset") == secret["console_reset"]


def test_an_older_application_finds_its_values_after_a_rollback_and_a_newer_one_again_after_that():
    """Version 2 calls `poll` `interval`, in minutes; `colour` is new in it."""

    def forward(old):
        new = dict(old)
        if "poll" in new:
            new["interval"] = new["poll"] // 60
        return new

    def backward(new):
        old = dict(new)
        if "interval" in old:
            old["poll"] = old["interval"] * 60
        return old

    schema, version = values.SCHEMA, values.VERSION
    made = fresh({"poll": 600})
    made.change({"notify": ["failed"]}, USER)
    newer = [line for line in schema if line[0] != "poll"] + [
        ("interval", values.NUMBER, (1, 1440), 60, 60, ADMIN, ""),
        ("colour", values.TEXT, 16, "red", "red", USER, ""),
    ]
    try:
        values.SCHEMA, values.VERSION, values.MIGRATIONS = tuple(newer), 2, ((1, forward, backward),)
        made = Settings()
        assert made.get("interval") == 10
        made.change({"interval": 20, "colour": "blue"}, ADMIN)
        values.SCHEMA, values.VERSION, values.MIGRATIONS = schema, version, ()
        made = Settings()  # rolled back
        assert (made.get("poll"), made.get("notify")) == (1200, ["failed"])
        made.change({"poll": 1800}, ADMIN)
        values.SCHEMA, values.VERSION, values.MIGRATIONS = tuple(newer), 2, ((1, forward, backward),)
        made = Settings()  # and updated again
        assert (made.get("interval"), made.get("colour")) == (30, "blue")
    finally:
        values.SCHEMA, values.VERSION, values.MIGRATIONS = schema, version, ()


def test_either_copy_alone_is_enough_and_a_damaged_newer_one_is_passed_over():
    path = FOLDER + "/pair"
    store.remove(path)
    assert store.load(path) is None
    store.save(path, b"one")
    store.save(path, b"two")
    assert store.load(path) == b"two"
    with open(path + ".1", "r+b") as file:
        file.seek(17)
        file.write(b"!")
    assert store.load(path) == b"one"
    store.save(path, b"three")
    assert store.load(path) == b"three"
    with open(path + ".1", "wb") as file:
        file.write(bytes(3))
    assert store.load(path) in (b"one", b"three")
    store.remove(path)
    assert store.load(path) is None


def test_a_file_system_that_is_not_there_is_refused_by_name():
    assert refusal(store.save, FOLDER + "/none/settings", b"x") == "FLASH"
    made = fresh()
    kept, values.KEPT = values.KEPT, FOLDER + "/none/settings"
    try:
        assert refusal(made.change, {"poll": 60}, ADMIN) == "FLASH"
        assert made.get("poll") == values.POLL
    finally:
        values.KEPT = kept


def test_the_digest_tells_values_apart_and_no_passphrases():
    made = fresh({"wifi": HOME})
    one = made.digest()
    assert one == fresh({"wifi": [["home", "another one"]]}).digest()
    assert one != fresh({"wifi": [["away", "12345678"]]}).digest()
    assert one != fresh({"wifi": HOME, "poll": 60}).digest()


KEY = bytes(range(32))
DEVICE = bytes(range(16))


def test_a_backup_brings_the_settings_to_another_device():
    made = fresh({"server": "http://a", "wifi": [["Caf\u00e9 \u6771\u4eac", "12345678"]], "poll": 60})
    made.change({"groups": ["north"]}, ORDER)
    document = backup.take(made, DEVICE, KEY)
    assert b"12345678" not in document
    assert document != backup.take(made, DEVICE, KEY)
    other = fresh()
    backup.put_back(other, DEVICE, KEY, document, ADMIN)
    assert other.get("poll") == 60
    assert other.get("groups") == []  # only an order may set them
    assert other.get("wifi") == []
    other.proved()
    assert Settings().get("wifi") == [["Caf\u00e9 \u6771\u4eac", "12345678"]]
    backup.put_back(other, DEVICE, KEY, document, ORDER)
    assert Settings().get("groups") == ["north"]


def test_a_backup_that_was_changed_anywhere_or_opened_with_another_key_is_refused():
    made = fresh({"poll": 60})
    document = backup.take(made, DEVICE, KEY)
    assert refusal(backup.put_back, made, DEVICE, bytes(32), document, ORDER) == "BACKUP"
    assert refusal(backup.put_back, made, DEVICE, "a passphrase", document, ORDER) == "BACKUP"
    for at in range(0, len(document), 7):
        changed = bytearray(document)
        changed[at] ^= 1
        assert refusal(seal.unseal, KEY, changed) == "BACKUP", at
    for size in (0, 3, 28, 59, len(document) - 1):
        assert refusal(seal.unseal, KEY, document[:size]) == "BACKUP"
    assert refusal(seal.unseal, KEY, bytes(seal.MAX_SEALED + 1)) == "LIMIT"
    assert refusal(backup.put_back, made, DEVICE, KEY, seal.seal(KEY, b"\xa1\x01\x02"), ORDER) == "SETTING"
    assert refusal(backup.put_back, made, DEVICE, KEY, seal.seal(KEY, b"\x9f"), ORDER) == "CBOR"


def test_a_passphrase_opens_its_backup_and_a_short_one_is_refused():
    sealed = seal.seal("correct horse", b"content", 3)
    assert seal.unseal("correct horse", sealed) == b"content"
    assert refusal(seal.unseal, "correct house", sealed) == "BACKUP"
    assert refusal(seal.seal, "short", b"") == "LIMIT"
    greedy = sealed[:8] + b"\xff\xff\xff\xff" + sealed[12:]
    assert refusal(seal.unseal, "correct horse", greedy) == "BACKUP"  # before a single round


def test_pbkdf2_by_its_vector():
    from binascii import hexlify

    assert str(hexlify(seal.pbkdf2(b"passwd", b"salt", 1)), "utf-8") == (
        "55ac046e56e3089fec1691c22544b605f94185216dde0465e68b9d57c20dacbc"
    )  # RFC 7914 section 11


NOON = 1767265200  # 2026-01-01 11:00 UTC, a Thursday


def test_windows_know_days_midnight_and_local_time():
    cases = (
        ("", 0, True),
        ("10:00-12:00", 0, True), ("11:00-11:01", 0, True), ("11:01-12:00", 0, False), ("09:00-11:00", 0, False),
        ("thu 10:00-12:00", 0, True), ("fri-wed 10:00-12:00", 0, False), ("mon-fri 10:00-12:00", 0, True),
        ("sat,thu 10:00-12:00", 0, True), ("fri 00:00-01:00", 840, False), ("fri 01:00-02:00", 840, True),
        ("23:00-12:00", 0, True), ("wed 23:00-12:00", 0, True), ("thu 23:00-12:00", 0, False),
        ("wed 12:00-12:00", 0, True), ("thu 12:00-12:00", 0, False), ("thu 11:00-11:00", 0, True),
        ("00:00-24:00", 0, True), ("sun 00:00-24:00", 0, False), ("sun 00:00-24:00; thu 10:00-12:00", 0, True),
    )  # fmt: skip
    for text, offset, expected in cases:
        assert policy.inside(text, NOON, offset) is expected, text


def test_what_policy_says_to_a_release():
    from sekisho_boot.reasons import name

    def verdict(decision=None, clock=True, now=NOON, **changes):
        options = fresh(changes).all()
        return (
            name(policy.verdict(options, decision, now, clock)) if policy.verdict(options, decision, now, clock) else ""
        )

    assert verdict() == ""
    assert verdict(update_enabled=False) == "DISABLED"
    assert verdict((policy.APPROVE, 0, 3), update_enabled=False) == "DISABLED"
    assert verdict((policy.REFUSE, 0, 1)) == "DECLINED"
    assert verdict((policy.POSTPONE, NOON + 1, 1)) == "WINDOW"
    assert verdict((policy.POSTPONE, NOON, 1)) == ""
    assert verdict((policy.POSTPONE, NOON + 1, 1), clock=False) == ""
    assert verdict((policy.DELAY, 1, 1)) == "WINDOW"
    assert verdict((policy.DELAY, 1, 1), clock=False) == "WINDOW"
    assert verdict((policy.DELAY, 0, 1), clock=False) == ""
    assert verdict((policy.DELAY, 0, 1), update_start="user") == "APPROVAL"
    assert verdict(update_start="user") == "APPROVAL"
    assert verdict((policy.APPROVE, 0, USER), update_start="user") == ""
    assert verdict((policy.APPROVE, 0, USER), update_start="administrator") == "APPROVAL"
    assert verdict((policy.APPROVE, 0, ORDER), update_start="administrator") == ""
    assert verdict(update_window="12:00-13:00") == "WINDOW"
    assert verdict(update_window="12:00-13:00", clock=False) == ""
