#define MICROPY_HW_BOARD_NAME               "Sekisho ESP32-C3" SEKISHO_PROFILE
#define MICROPY_HW_MCU_NAME                 "ESP32-C3"

#include "../sekisho.h"
