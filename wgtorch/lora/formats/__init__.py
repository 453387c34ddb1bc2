"""Adapter files of other programs: read into PEFT's form by the names that a graph's models have, and written back.

::

    tensors of a file --layer_tensors--> by layer and kind --names--> layers of a model --low_rank--> PEFT's A and B

What a file calls a layer is looked up in what the models at hand have (:mod:`~wgtorch.lora.formats.foreign_layer_names`), in place of being
translated by rules that know one size of one model: so every key finds its layer, or is named in an error.
"""
