"""What can be trained around a block that cannot: phrases and vectors before it, layers after it.

::

    text --> PromptAdapter --> model behind an API --> embedder --> ResponseHead --> output
             learns by reward     no derivative                     learns by loss
"""

from wgtorch.blocks.api_adapters.hashed_embedder import HashedEmbedder
from wgtorch.blocks.api_adapters.prompt_adapter import PromptAdapter
from wgtorch.blocks.api_adapters.response_head import ResponseHead
from wgtorch.blocks.api_adapters.soft_prompt import SoftPrompt

__all__ = ["HashedEmbedder", "PromptAdapter", "ResponseHead", "SoftPrompt"]
