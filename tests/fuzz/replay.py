"""Runs inputs through the targets on MicroPython: ``replay.py SEARCH_PATH INPUTS MILLISECONDS``.

INPUTS is a file of records: name length, name, 4-byte length, bytes. Every input must end in a return or a refusal:
no other exception (MemoryError least of all), and none may take longer than the bound. Prints one line per failure,
then ``N inputs, M failures, slowest K ms``.
"""

import gc
import sys
import time

gc.threshold(2048)  # modules lie on the heap here: collecting often keeps what stays of loading them together
sys.path[:0] = sys.argv[1].split(":")

import targets  # noqa: E402


def main(path, bound):
    """Run every record of the file and return the number of failures."""
    count = failures = slowest = 0
    with open(path, "rb") as file:
        while True:
            size = file.read(1)
            if not size:
                break
            name = str(file.read(size[0]), "utf-8")
            data = file.read(int.from_bytes(file.read(4), "big"))
            gc.collect()
            start = time.ticks_ms()
            try:
                targets.run(name, data)
            except Exception as error:
                failures += 1
                print("FAIL", count, name, repr(error))
            took = time.ticks_diff(time.ticks_ms(), start)
            if took > bound:
                failures += 1
                print("SLOW", count, name, took, "ms")
            slowest = max(slowest, took)
            count += 1
    print("%d inputs, %d failures, slowest %d ms" % (count, failures, slowest))
    return failures


sys.exit(1 if main(sys.argv[2], int(sys.argv[3])) else 0)
