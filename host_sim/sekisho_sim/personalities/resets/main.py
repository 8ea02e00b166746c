# An image that restarts over and over without ever confirming itself.
import machine  # type: ignore[import-not-found]

print("application: this image restarts")
machine.reset()
