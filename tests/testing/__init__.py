"""What wgtorch.testing gives to users."""
