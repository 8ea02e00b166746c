# An image that begins its Python anew over and over: the bootloader never runs, and only the engine can count.
import machine  # type: ignore[import-not-found]

print("application: this image begins anew")
machine.soft_reset()
