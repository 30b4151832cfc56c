"""Fine-tune a Hugging Face vision-language model on the readers' corrections, up to a published LoRA adapter.

The prompts are those of `radfound.engine.transformers`, so that training and answering cannot differ.
"""
