# Stock mode: the official firmware has mounted the `vfs` partition and runs this file from it.
# Firmware with Sekisho frozen in has a copy too, so that no file of this name is ever run; there _boot.py was faster.
import sys

if "sekisho_boot.engine" not in sys.modules:
    sys.path[:] = [".frozen", "/lib"]

    import gc

    import micropython

    gc.threshold(16384)  # as in _boot.py
    micropython.kbd_intr(-1)  # Ctrl-C must not stop the engine half-way
    port = decision = None
    try:
        import sekisho_pack

        sekisho_pack.mount()
        import sekisho_config

        for name in ("reasons", "cbor", "records", "sha512", "ed25519", "cose", "keyset", "suit", "ledger", "engine"):
            gc.collect()  # code loaded from files lies on the heap: garbage in between would tear it apart
            __import__("sekisho_boot." + name)
        from sekisho_boot.engine import boot
        from sekisho_boot.port import Port

        gc.collect()
        port = Port(sekisho_config)
        decision = boot(port)
    except Exception as error:
        sys.print_exception(error)

    try:
        gc.collect()
        import sekisho
        from sekisho.mounts import mount

        sekisho.started(port, decision)
        mount(decision and decision.app, stock=True)
    except Exception as error:
        sys.print_exception(error)
    micropython.kbd_intr(3)
