"""On the device: what applications and the update agent use. Imports `sekisho_boot`, never the other way round."""
