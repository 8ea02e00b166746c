// Production profile: nothing but signed updates gets code onto the device.

// No prompt on any port. This also silences print(); for a development build leave out the settings of the port in use.
#define MICROPY_HW_ENABLE_UART_REPL         (0)
#define MICROPY_HW_ENABLE_USBDEV            (0)
#define MICROPY_HW_USB_CDC                  (0)
#define MICROPY_HW_ESP_USB_SERIAL_JTAG      (0)

// No file system that mounts itself and joins sys.path before the engine runs.
#define MICROPY_VFS_ROM                     (0)
