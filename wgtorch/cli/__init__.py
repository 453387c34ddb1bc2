"""The command line: ``wgtorch run|validate|draw|templates``."""
