#define MICROPY_HW_BOARD_NAME               "Sekisho ESP32-C3"
#define MICROPY_HW_MCU_NAME                 "ESP32-C3"

#include "../sekisho.h"
