# Runs on CPython and on MicroPython: one line of result for each request to tests/bad_server.py.
import asyncio
import gc

from sekisho import http
from sekisho_boot import reasons

PATHS = (
    "good truncates says-longer says-shorter status/204 status/400 status/401 status/403 status/404 status/410 "
    "status/429 status/500 status/503 status/999 retry-after-years retry-after/1 retry-after/31 retry-after/0 "
    "retry-after/-5 retry-after/soon retry-after/Wed,%2021%20Oct%202015%2007:28:00%20GMT "
    "no-length two-lengths negative-length "
    "enormous-length chunked gzip big-head endless-head not-http binary odd-headers closes resets silent stalls "
    "drips drips-head redirect redirect-loop redirect-away redirect-nowhere"
).split()
RESUMED = "good wrong-range range-length-differs range-without-header ignores-range status/416".split()
URLS = (
    "ftp://host/x", "http://", "http://host:99999999/", "http://host:x/", "http://a b/", "http://h/\r\nX: y",
    "http://user@host/", "http://[::1]/", "//host/x", "http://h/" + "x" * 600, "https://127.0.0.1/x",
)  # fmt: skip


def be_patient(path: str) -> None:
    """Little patience where it is what is tested, enough for a busy machine everywhere else."""
    http._NAP = 0.001  # s
    http.PATIENCE = 400 if path in ("silent", "stalls", "drips", "drips-head") else 30_000  # ms


async def outcome(url: str, **options) -> str:
    """The whole body in pieces of 4 KiB: what a caller sees."""
    piece = bytearray(4096)
    response = None
    try:
        response = await http.get(url, **options)
        total = check = 0
        while response.left:
            size = await response.readinto(piece)
            total += size
            check = (check + sum(memoryview(piece)[:size])) & 0xFFFF
        return "%d %d+%d/%d %d" % (response.status, response.start, total, response.total, check)
    except http.Failed as error:
        return "%s %d %s" % (reasons.name(error.code), error.pause, error.detail)
    finally:
        if response:
            response.close()


async def run(base: str, dead: str) -> None:
    for path in PATHS:
        gc.collect()
        be_patient(path)
        print(path, "=", await outcome(base + "/" + path))
    be_patient("")
    for path in RESUMED:
        print("resumed", path, "=", await outcome(base + "/" + path, start=4096, if_range='"a"'))
    print("resumed changed", "=", await outcome(base + "/good", start=4096, if_range='"z"'))
    print("resumed weak", "=", await outcome(base + "/good", start=4096, if_range='W/"a"'))
    print("unchanged", "=", await outcome(base + "/good", if_none='"a"'))
    print("nobody listens", "=", await outcome(dead + "/good"))
    for url in URLS:
        print("url", url[:30].replace("\r\n", "|"), "=", await outcome(url))
    for limit in (9999, 10000):
        try:
            print("fetch", limit, "=", len((await http.fetch(base + "/good", limit))[0]))
        except http.Failed as error:
            print("fetch", limit, "=", reasons.name(error.code), error.detail)


def main(base: str, dead: str) -> None:
    asyncio.run(run(base, dead))
