#define MICROPY_HW_BOARD_NAME               "Sekisho ESP32" SEKISHO_PROFILE
#define MICROPY_HW_MCU_NAME                 "ESP32"

#include "../sekisho.h"
