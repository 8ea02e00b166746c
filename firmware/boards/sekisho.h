// Production profile: nothing but signed updates gets code onto the device.

// No prompt on any port. This also silences print(); for a development build leave out the settings of the port in use.
#define MICROPY_HW_ENABLE_UART_REPL         (0)
#define MICROPY_HW_ENABLE_USBDEV            (0)
#define MICROPY_HW_USB_CDC                  (0)
#define MICROPY_HW_ESP_USB_SERIAL_JTAG      (0)

// No file system that mounts itself and joins sys.path before the engine runs.
#define MICROPY_VFS_ROM                     (0)

// Part of the board's name, so that `sekisho factory check` can tell by the finished image what it was built as. A setting
// that is left out takes MicroPython's default, which opens the prompt: only what is defined as 0 counts.
#if defined(MICROPY_HW_ENABLE_UART_REPL) && !MICROPY_HW_ENABLE_UART_REPL \
    && defined(MICROPY_HW_ENABLE_USBDEV) && !MICROPY_HW_ENABLE_USBDEV \
    && defined(MICROPY_HW_ESP_USB_SERIAL_JTAG) && !MICROPY_HW_ESP_USB_SERIAL_JTAG \
    && defined(MICROPY_VFS_ROM) && !MICROPY_VFS_ROM
#define SEKISHO_PROFILE " (production)"
#else
#define SEKISHO_PROFILE " (development)"
#endif
