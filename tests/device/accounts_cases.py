"""Accounts of the console: who gets in, and what guessing costs. On CPython and on MicroPython."""

import asyncio

from sekisho import accounts
from sekisho.accounts import ADMIN, USER, Accounts, Denied
from sekisho_boot.reasons import FLASH, Refused

from device import claims

LABEL = b"ABCD-EFGH-JKMN-PQRS"
PASSWORD = "correct horse battery"


class Set:
    """Settings as far as accounts ask for them."""

    def __init__(self, **values):
        self.values = {"lockout_tries": 3, "lockout_minutes": 15, "console_reset": ""}
        self.values.update(values)

    def get(self, name):
        return self.values[name]

    def change(self, changes, role):
        self.values.update(changes)


class Log:
    def __init__(self):
        self.events = []

    def append(self, event, reason=0, value=0, detail=b""):
        self.events.append((event, value))


class Clock:
    """Ticks that a test moves."""

    now = 1000

    @staticmethod
    def ticks_ms():
        return Clock.now

    @staticmethod
    def ticks_diff(end, start):
        return end - start

    @staticmethod
    def ticks_add(ticks, delta):
        return ticks + delta


class Flash:
    """In place of `store`."""

    def __init__(self):
        self.kept = None
        self.broken = False
        self.writes = 0

    def load(self, path):
        return self.kept

    def save(self, path, content):
        if self.broken:
            raise Refused(FLASH)
        self.kept = bytes(content)
        self.writes += 1


class Issued:
    def __init__(self, secret=LABEL):
        self.secret = secret

    def load(self):
        return {"console": self.secret} if self.secret else {}

    def forget(self, name):
        self.secret = b""


def world(secret=LABEL):
    accounts.store, accounts.issued, accounts.time = Flash(), Issued(secret), Clock
    accounts.ROUNDS = 4  # the cost is not what these cases are about
    return accounts.store


def login(of, password, name="administrator"):
    try:
        return asyncio.run(of.login(name, password))
    except Denied as denied:
        return denied.wait


def wait(seconds):
    Clock.now += seconds * 1000


def with_password(settings=None):
    flash = world()
    made = Accounts(settings or Set(), Log())
    asyncio.run(made.set_password(ADMIN, PASSWORD))
    return flash, made


def test_the_hash_is_pbkdf2():
    found = asyncio.run(accounts.slow_hash(b"password", b"salt", 4096))
    assert found == bytes.fromhex("c5e478d59288c841aa530db6845c4c8d962893a001ce4e11a4963873aa98134a")
    long = asyncio.run(accounts.slow_hash(b"passwordPASSWORDpassword", b"saltSALTsaltSALTsaltSALTsaltSALTsalt", 4096))
    assert long == bytes.fromhex("348c89dbcbd32b2f32d814b8116e84cf2b17347ebc1800181c4e2a1fb8dd53e1")


def test_without_a_secret_of_its_own_nobody_can_log_in():
    world(b"")
    none = Accounts(Set(), Log())
    assert not none.ready()
    for guess in ("", "admin", "sekisho", "password"):
        assert login(none, guess) == 0
        wait(3600)
    world(b"SHORT")
    assert not Accounts(Set(), Log()).ready()


def test_the_secret_from_the_label_leads_to_the_choice_of_a_password_and_to_nothing_else():
    world()
    made = Accounts(Set(), Log())
    assert made.ready()
    for typed in ("ABCD-EFGH-JKMN-PQRS", "abcdefghjkmnpqrs", "ABCD EFGH JKMN PQRS"):
        assert login(made, typed).change
    asyncio.run(made.set_password(ADMIN, PASSWORD))
    assert accounts.issued.secret == b""
    assert not made.sessions  # whoever was logged in with it is not any more
    assert login(made, "ABCD-EFGH-JKMN-PQRS") == 0
    wait(60)
    assert not login(made, PASSWORD).change
    assert Accounts(Set(), Log()).label() == "ABCD-EFGH-JKMN-PQRS"  # the access point keeps it


def test_weak_passwords_are_refused():
    world()
    made = Accounts(Set(console_reset="let me in, once"), Log())
    for weak in ("", "short", "aaaaaaaaaaaaaaa", "ababababab", "abcd-efgh-jkmn-pqrs", "LET ME IN, once", "x" * 10):
        assert made.weakness(weak), weak
    assert made.weakness("y" * 60 + "abcdefgh")
    assert not made.weakness(PASSWORD)


def test_an_attempt_is_counted_before_it_is_judged():
    flash, made = with_password()
    before = flash.writes
    counted = []

    async def judge(role, password):
        counted.append(Accounts(Set(), Log())._fails(ADMIN))
        raise OSError("the power is gone")

    made._judge = judge
    try:
        login(made, PASSWORD)
        raise AssertionError
    except OSError:
        pass
    assert counted == [1]
    assert flash.writes == before + 1
    assert Accounts(Set(), Log()).wait(ADMIN) >= 1  # after the power came back


def test_attempts_that_cannot_be_counted_are_not_judged():
    flash, made = with_password()
    flash.broken = True
    assert claims.refusal(login, made, PASSWORD) == "FLASH"


def test_waits_grow_and_end_in_a_lock_out_that_outlives_the_power():
    _, made = with_password(Set(lockout_tries=5))
    waits = []
    for _ in range(5):
        assert login(made, "wrong") == 0
        waits.append(made.wait(ADMIN))
        again = Accounts(Set(lockout_tries=5), Log())
        assert again.wait(ADMIN) == waits[-1]  # pulling the plug gains nothing
        wait(waits[-1])
    assert waits == [1, 2, 4, 8, 900]
    assert not login(made, PASSWORD).change  # the right one, after the wait
    assert made.wait(ADMIN) == 0
    assert login(made, "wrong") == 0
    assert made.wait(ADMIN) == 1  # the count began anew


def test_nothing_is_judged_while_an_account_waits_and_the_wait_is_not_prolonged():
    flash, made = with_password()
    for _ in range(3):
        login(made, "wrong")
        wait(made.wait(ADMIN) if made.wait(ADMIN) < 60 else 0)
    writes = flash.writes
    assert login(made, PASSWORD) == 900
    wait(899)
    assert login(made, PASSWORD) == 1
    assert flash.writes == writes
    wait(1)
    assert login(made, PASSWORD).role == ADMIN


def test_after_a_lock_out_every_failure_locks_again():
    _, made = with_password()
    for _ in range(3):
        login(made, "wrong")
        wait(made.wait(ADMIN))
    login(made, "wrong")
    assert made.wait(ADMIN) == 900


def test_thresholds_come_from_the_settings():
    settings = Set(lockout_tries=4, lockout_minutes=2)
    _, made = with_password(settings)
    for _ in range(4):
        login(made, "wrong")
        last = made.wait(ADMIN)
        wait(last)
    assert last == 120
    assert [value for event, value in made.log.events if event == accounts.eventlog.LOCKED_OUT] == [ADMIN]


def test_a_locked_account_leaves_the_other_one_open():
    _, made = with_password()
    asyncio.run(made.set_password(USER, "another long password"))
    for _ in range(3):
        login(made, "wrong", "user")
        wait(made.wait(USER) if made.wait(USER) < 60 else 0)
    assert made.wait(USER) > 0
    assert login(made, PASSWORD).role == ADMIN


def test_only_one_attempt_is_judged_at_a_time():
    _, made = with_password()

    async def both():
        first = asyncio.create_task(made.login("administrator", "wrong"))
        await asyncio.sleep(0)
        try:
            await made.login("administrator", PASSWORD)
            return 0
        except Denied as denied:
            return denied.wait
        finally:
            try:
                await first
            except Denied:
                pass

    assert asyncio.run(both()) >= 1


def test_an_order_can_give_a_new_way_in_once():
    settings = Set()
    _, made = with_password(settings)
    settings.values["console_reset"] = "let me in, once"
    assert login(made, "let me in, once").change
    asyncio.run(made.set_password(ADMIN, "a quite new password"))
    assert settings.values["console_reset"] == ""
    assert login(made, "let me in, once") == 0


def test_sessions_are_few_end_by_themselves_and_cannot_be_guessed():
    _, made = with_password()
    first = login(made, PASSWORD)
    others = [login(made, PASSWORD) for _ in range(accounts.MAX_SESSIONS)]
    assert made.session(first.id) is None  # the oldest gave way
    assert len({one.id for one in others} | {one.csrf for one in others}) == 2 * accounts.MAX_SESSIONS
    assert made.session("") is None
    assert made.session(others[0].id[:-1]) is None
    for _ in range(accounts.MAX_SESSION // (accounts.IDLE - 1)):
        wait(accounts.IDLE - 1)
        assert made.session(others[-1].id)
    wait(accounts.IDLE - 1)
    assert made.session(others[-1].id) is None  # in use, but too long
    later = login(made, PASSWORD)
    wait(accounts.IDLE)
    assert made.session(later.id) is None


def test_damaged_records_let_nobody_in():
    flash, _ = with_password()
    good = flash.kept
    for bad in (b"", b"{", b"[]", b'{"administrator": 1}', b'{"administrator": ["zz", 4, "zz"]}', good[:-2]):
        flash.kept = bad
        accounts.issued.secret = b""
        made = Accounts(Set(), Log())
        assert not made.ready(), bad
        assert login(made, PASSWORD) == 0
    flash.kept = b'{"administrator": ["00", 4, "00"], "fails": {"administrator": "x"}}'
    assert Accounts(Set(), Log()).wait(ADMIN) == 900


def test_what_is_kept_holds_no_password():
    flash, _ = with_password()
    assert PASSWORD.encode() not in flash.kept
