# Runs before everything else on a chip whose firmware has Sekisho frozen in, Ctrl-C still off.
# The first statement keeps files out of every import that follows: one named hashlib.py would replace the built-in.
import sys

sys.path[:] = [".frozen"]

import gc  # noqa: E402

# Without it garbage is collected only when the heap is full, and by then what lives on is strewn all over it: measured
# on the simulated device, 65 KB free and no 4 KB in one piece, against 52 KB in one piece with it.
gc.threshold(16384)

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
