# Runs the functions of a module whose names start with test_, on CPython and on MicroPython. One line for each.
import gc
import sys


def main(name: str, *arguments: str) -> None:
    module = sys.modules.get("device." + name) or __import__("device." + name, None, None, ("main",))
    if hasattr(module, "start"):
        module.start(*arguments)
    for claim in sorted(dir(module)):
        if claim.startswith("test_"):
            gc.collect()
            try:
                getattr(module, claim)()
            except Exception as error:
                print("FAIL", claim)
                if hasattr(sys, "print_exception"):
                    sys.print_exception(error)
                else:
                    import traceback

                    traceback.print_exception(error, file=sys.stdout)
            else:
                print("ok", claim)


def refusal(call, *arguments) -> str:
    """The name of the reason with which a call was refused, or "" when it was not."""
    from sekisho_boot.reasons import Refused, name

    try:
        call(*arguments)
    except Refused as refused:
        return name(refused.code)
    return ""
