# An application without asyncio: this file takes the place of main.py.
import time

import micropython

micropython.kbd_intr(-1)  # Ctrl-C stays closed until `sekisho` opens it, where the device's mode allows it
import sekisho  # noqa: E402

sekisho.on_health(lambda: True)
due = time.ticks_ms()  # at once: on trial the image must be confirmed before its deadline
while True:
    print("working")
    time.sleep(1)
    sekisho.watchdog()  # started by the first trial, and nothing stops it again
    if time.ticks_diff(time.ticks_ms(), due) >= 0:
        due = time.ticks_add(time.ticks_ms(), sekisho.look() * 1000)  # restarts by itself where an update is ready
