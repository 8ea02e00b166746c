# Runs before everything else on a chip whose firmware has Sekisho frozen in, Ctrl-C still off.
# The first statement keeps files out of every import that follows: one named hashlib.py would replace the built-in.
import sys

sys.path[:] = [".frozen"]

port = decision = None
try:
    import sekisho_config
    from sekisho_boot.engine import boot
    from sekisho_boot.port import Port

    port = Port(sekisho_config)
    decision = boot(port)
except Exception as error:  # the engine counts its own faults; the device must reach the application all the same
    sys.print_exception(error)

try:
    import sekisho
    from sekisho.mounts import mount

    sekisho.started(port, decision)
    mount(decision and decision.app)
except Exception as error:
    sys.print_exception(error)
