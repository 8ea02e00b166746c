#define MICROPY_HW_BOARD_NAME               "Sekisho ESP32-S3" SEKISHO_PROFILE
#define MICROPY_HW_MCU_NAME                 "ESP32-S3"

#include "../sekisho.h"
