# The default application: updates, health check, confirmation, and whatever the module `application` adds.
import micropython

micropython.kbd_intr(-1)  # MicroPython lets Ctrl-C in with this file; `sekisho` does, where the device's mode allows it
import sekisho  # noqa: E402

sekisho.run("application")
