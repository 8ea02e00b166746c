# Sekisho on ESP32: MicroPython's own settings, then ours, then what the partition table needs.
set(IDF_TARGET esp32)

set(SEKISHO_PARTITIONS 4MiB.csv)
include(${CMAKE_CURRENT_LIST_DIR}/../sekisho.cmake)

set(SDKCONFIG_DEFAULTS
    boards/sdkconfig.base
    ${SDKCONFIG_IDF_VERSION_SPECIFIC}
    boards/sdkconfig.ble
    ${SEKISHO_SDKCONFIG}
    ${CMAKE_CURRENT_LIST_DIR}/sdkconfig.board
    ${SEKISHO_PARTITIONS_SDKCONFIG}
)

set(MICROPY_FROZEN_MANIFEST ${CMAKE_CURRENT_LIST_DIR}/manifest.py)
