"""LoRA adapters of a vision-language model: loading, and switching between requests."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

from radfound.exceptions import AdapterError, NotFoundError
from radfound.records.adapter_weights import check_weights, is_of_language_model

TARGETS = r".*\.(language_model|text_model)\..*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"
"""The linear layers of the language model in every family, and none of the vision encoder."""


class Adapters:
    """The adapters that are loaded into a model. Not thread-safe: the backend's worker calls it.

    Parameters
    ----------
    model : PreTrainedModel
    probe : tensor, shape (1, L)
        Token ids of a fixed prompt, whose log-probabilities an adapter must change.
    """

    def __init__(self, model: Any, probe: torch.Tensor):
        self._model = model
        self._probe = probe
        self._peft: Any = None
        self._loaded: set[str] = set()
        self._used: str | None = None
        self._base: torch.Tensor | None = None

    def __contains__(self, adapter: str) -> bool:
        return adapter in self._loaded

    def load(self, adapter: str, folder: Path) -> None:
        """Load an adapter under an id; does nothing if it is loaded.

        Raises
        ------
        AdapterError
            If it is damaged, does not fit, or does not change the probe's log-probabilities.
        """
        if adapter in self._loaded:
            return
        check_weights(folder, _linears(self._model))
        self.use(None)
        if self._base is None:
            self._base = self._log_probabilities()
        name = _peft_name(adapter)
        from peft import PeftModel

        try:
            if self._peft is None:
                self._peft = PeftModel.from_pretrained(
                    self._model, folder, adapter_name=name, is_trainable=False
                )
            else:
                self._peft.load_adapter(folder, adapter_name=name, is_trainable=False)
        except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise AdapterError(
                f"adapter {folder.name}: cannot be loaded ({reason}); train it again"
            ) from error
        self._model.eval()
        self._loaded.add(adapter)
        self._used = adapter
        self._peft.base_model.enable_adapter_layers()
        self._peft.set_adapter(name)
        if torch.equal(self._base, self._log_probabilities()):
            self.drop(adapter)
            raise AdapterError(
                f"adapter {folder.name}: does not change the model's probabilities; it belongs to another model, "
                "or was not trained"
            )
        self.use(None)

    def use(self, adapter: str | None) -> None:
        """Apply an adapter, or none, to the forward passes from now on."""
        if adapter is not None and adapter not in self._loaded:
            raise NotFoundError(f"adapter {adapter}: not loaded; choose another or the base model")
        if adapter == self._used or self._peft is None:
            return
        if adapter is None:
            self._peft.base_model.disable_adapter_layers()
        else:
            self._peft.base_model.enable_adapter_layers()
            self._peft.set_adapter(_peft_name(adapter))
        self._used = adapter

    def drop(self, adapter: str) -> None:
        """Unload an adapter; does nothing if it is unknown."""
        if adapter not in self._loaded:
            return
        self.use(None)
        self._loaded.discard(adapter)
        self._peft.delete_adapter(_peft_name(adapter))
        if not self._loaded:
            self._peft.unload()
            self._peft = None

    @torch.inference_mode()
    def _log_probabilities(self) -> torch.Tensor:
        ids = self._probe.to(self._model.device)
        core = self._model.model
        if hasattr(core, "rope_deltas"):
            core.rope_deltas = None
        logits = self._model(input_ids=ids, logits_to_keep=1, use_cache=False).logits
        found: torch.Tensor = logits[0, -1].float().log_softmax(-1).cpu()
        return found


def _linears(model: Any) -> dict[str, tuple[int, ...]]:
    """Return the shapes of the language model's linear layers by name, quantised ones included."""
    found: dict[str, tuple[int, ...]] = {}
    for name, module in model.named_modules():
        name = name.replace(".base_layer", "")
        if (
            is_of_language_model(name)
            and hasattr(module, "in_features")
            and hasattr(module, "out_features")
        ):
            found[name] = (int(module.out_features), int(module.in_features))
    return found


def _peft_name(adapter: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]", "_", adapter)
