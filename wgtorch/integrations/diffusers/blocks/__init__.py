"""Models of diffusers and transformers as blocks, and the small parts that stand between them; each module is imported when asked for."""
