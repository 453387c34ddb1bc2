"""Templates that ship with wgtorch."""
