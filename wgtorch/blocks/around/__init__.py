"""What can be trained around a block that cannot: phrases and vectors before it, layers after it.

::

    text --> PromptAdapter --> model behind an API --> embedder --> ResponseHead --> output
             learns by reward     no derivative                     learns by loss
"""

from wgtorch.blocks.around.hashed_embedder import HashedEmbedder
from wgtorch.blocks.around.prompt_adapter import PromptAdapter
from wgtorch.blocks.around.response_head import ResponseHead
from wgtorch.blocks.around.soft_prompt import SoftPrompt

__all__ = ["HashedEmbedder", "PromptAdapter", "ResponseHead", "SoftPrompt"]
