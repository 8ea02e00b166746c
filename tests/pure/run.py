"""Runs test functions on MicroPython as well as on CPython: ``run.py SEARCH_PATH... -- FILE...``.

A test file is a plain module; every function in it whose name starts with ``test_`` is called, and fails when it
raises. One line per test, then ``N passed, M failed``; the exit code is 0 only when something ran and nothing failed.
Data files lie in ``data/`` beside the tests; `sys.argv` is not for tests.
"""

import gc
import sys


def run_file(path):
    """Run the tests of one file and return (passed, failed)."""
    directory, _, name = path.rpartition("/")
    sys.path.insert(0, directory)
    gc.collect()
    module = __import__(name.rsplit(".", 1)[0])
    passed = failed = 0
    for test in sorted(dir(module)):
        if not test.startswith("test_"):
            continue
        gc.collect()
        try:
            getattr(module, test)()
        except Exception as error:
            failed += 1
            print("FAIL", name, test)
            if hasattr(sys, "print_exception"):
                sys.print_exception(error)
            else:
                import traceback

                traceback.print_exception(error)
        else:
            passed += 1
            print("ok", name, test)
    sys.path.pop(0)
    return passed, failed


def main(arguments):
    """Put the search path in place, run the files and return the exit code."""
    split = arguments.index("--")
    for path in reversed(arguments[:split]):
        sys.path.insert(0, path)
    passed = failed = 0
    for path in arguments[split + 1 :]:
        more_passed, more_failed = run_file(path)
        passed += more_passed
        failed += more_failed
    print("%d passed, %d failed" % (passed, failed))
    return 0 if passed and not failed else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
