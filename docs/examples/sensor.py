# A device that sleeps most of the time: this file takes the place of main.py.
import micropython

micropython.kbd_intr(-1)  # Ctrl-C stays closed until `sekisho` opens it, where the device's mode allows it
from machine import RTC, deepsleep  # noqa: E402

import sekisho  # noqa: E402

SLEEP = 300  # s between two measurements

sekisho.on_health(lambda: True)
print("measured")
rtc = RTC()
left = int(rtc.memory() or b"0")  # s until the next look at the server; lost with the power, and then it is now
if sekisho.on_trial() or left <= 0:
    left = sekisho.look()  # on trial it proves and confirms the image: eight wakes without that, and it goes back
rtc.memory(b"%d" % max(left - SLEEP, 0))
deepsleep(SLEEP * 1000)
