#define MICROPY_HW_BOARD_NAME               "Sekisho ESP32-C6" SEKISHO_PROFILE
#define MICROPY_HW_MCU_NAME                 "ESP32-C6"

#include "../sekisho.h"
