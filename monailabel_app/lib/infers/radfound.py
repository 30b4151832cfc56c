"""One MONAI Label model for each task; all three use the same weights."""

from __future__ import annotations

from typing import Any

from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType

from radfound.wire import answer_to_json

from ..answering.service import RadFoundService

MODELS = {"radfound_vqa": "vqa", "radfound_caption": "caption", "radfound_report": "report"}
_DESCRIPTIONS = {
    "vqa": "Answers a question about a study",
    "caption": "Describes a study in a sentence",
    "report": "Drafts findings and impression of a study",
}
# Keys that MONAI Label adds to a client's parameters; `model` and `image` are part of the address.
_OF_MONAI_LABEL = ("model", "image", "description")


class RadFoundInfer(InferTask):
    """One task of RadFound as a model of MONAI Label.

    Parameters
    ----------
    task : {"vqa", "caption", "report"}
    service : RadFoundService
    """

    def __init__(self, task: str, service: RadFoundService):
        super().__init__(InferType.OTHERS, [], 3, f"{_DESCRIPTIONS[task]} (RadFound)")
        self.task = task
        self.service = service

    def config(self) -> dict[str, Any]:
        """Return the models that `params.model` may name, the default first."""
        return {"models": [model["name"] for model in self.service.models.to_json()]}

    def is_valid(self) -> bool:
        """Return True; a missing checkpoint is reported at the first answer."""
        return True

    def __call__(self, request: dict[str, Any]) -> tuple[None, dict[str, Any]]:
        """Answer about an image of the datastore.

        Parameters
        ----------
        request : dict
            "image" is an id; the rest as in the `params` of an inference request.

        Returns
        -------
        (None, dict)
            No result file, and a `radfound.answer/1`.
        """
        params = {key: value for key, value in request.items() if key not in _OF_MONAI_LABEL}
        if isinstance(params.get("images"), str):
            del params["images"]  # a batch's selection of images, such as "all"
        inquiry = self.service.inquire(self.task, params, image=str(request.get("image") or ""))
        return None, answer_to_json(self.service.answer(inquiry))
