# An image that goes to deep sleep over and over: no watchdog reaches it there, and waking up is no failure.
import machine  # type: ignore[import-not-found]

print("application: this image sleeps")
machine.deepsleep(1000)
