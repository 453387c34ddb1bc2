"""Local models of transformers as backends of the model blocks; needs ``pip install 'wgtorch[transformers]'``."""
