# Common to all boards. Sets SEKISHO_SDKCONFIG (our settings) and SEKISHO_PARTITIONS_SDKCONFIG, a file written here:
# an sdkconfig knows no variables, and the path of the partition table must not depend on where the checkout lies.
set(SEKISHO_SDKCONFIG ${CMAKE_CURRENT_LIST_DIR}/sdkconfig.sekisho)

get_filename_component(SEKISHO_PARTITIONS_PATH ${CMAKE_CURRENT_LIST_DIR}/../partitions/${SEKISHO_PARTITIONS} ABSOLUTE)
set(SEKISHO_PARTITIONS_SDKCONFIG ${CMAKE_BINARY_DIR}/sdkconfig.sekisho-partitions)
file(WRITE ${SEKISHO_PARTITIONS_SDKCONFIG}
    "CONFIG_PARTITION_TABLE_CUSTOM=y\nCONFIG_PARTITION_TABLE_CUSTOM_FILENAME=\"${SEKISHO_PARTITIONS_PATH}\"\n"
)
