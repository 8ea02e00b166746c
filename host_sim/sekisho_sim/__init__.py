"""An ESP32 on the desk: flash, bootloader, resets and power cuts around a real MicroPython."""
