"""The backend of any Hugging Face vision-language model, run in this process.

`AutoModelForImageTextToText` with its `AutoProcessor`, from a local folder of safetensors, without custom code.
Imports torch, transformers and peft; nothing above imports this package before a model is chosen.
"""
