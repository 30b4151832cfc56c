"""Inference and study selection, under MONAI Label's addresses and with its parameters."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Depends, File, Form, Request, UploadFile
from fastapi.responses import Response
from monailabel.config import settings
from monailabel.endpoints import activelearning, infer
from monailabel.endpoints.user.auth import RBAC, User
from monailabel.interfaces.utils.app import app_instance
from requests_toolbelt import MultipartEncoder
from starlette.concurrency import run_in_threadpool

from radfound.exceptions import NotFoundError, RequestError
from radfound.question import Answer
from radfound.wire import AnswerJson, NextStudy, answer_to_json

from ..answering.service import EVIDENCE_NAME, RadFoundService
from ..infers import MODELS
from .fields import file_name, json_object, sound_body
from .running import run_for

if TYPE_CHECKING:
    from radfound.study.evidence_map import Evidence

router = APIRouter(dependencies=[Depends(sound_body)])

_JSON_TYPE = "application/json"
_NRRD_TYPE = "application/octet-stream"

_USER = RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER)


@router.post(
    "/infer/{model}",
    tags=["Infer"],
    summary="Ask a model about an image",
    responses={200: {"model": AnswerJson}},
)
async def run_inference(
    request: Request,
    model: str,
    image: str = "",
    session_id: str = "",
    params: str = Form("{}"),
    file: UploadFile = File(None),
    label: UploadFile = File(None),
    output: infer.ResultType | None = None,
    user: User = Depends(_USER),
) -> Any:
    """Return a `radfound.answer/1`, without blocking the event loop as MONAI Label does.

    `output=all` adds the evidence maps; `output=image` returns the first map alone. MONAI Label's own
    client sends no `output`; `"evidence": true` in the params then means `output=all`. An answer that is not
    the language model's has no map, and says why in `evidence_note`; `"model_only": true` in the params asks
    the language model itself.
    """
    service: RadFoundService = app_instance().service
    if model not in MODELS:
        raise NotFoundError(f"model: found {model[:80]!r}; expected {' or '.join(MODELS)}")
    if output is infer.ResultType.dicom_seg:
        raise RequestError("output: an answer has no dicom_seg; expected json, image or all")
    if not (image or session_id or file):
        raise RequestError("image: missing; expected image, session_id or a file")
    asked = json_object("params", params)
    if output in (infer.ResultType.all, infer.ResultType.image):
        asked["evidence"] = True
    upload = (file_name("file", file), file.file) if file else None

    inquiry = await run_for(
        request,
        service.inquire_soon(
            MODELS[model], asked, image=image, session_id=session_id, upload=upload
        ),
    )
    if output is None and inquiry.ask.evidence:
        output = infer.ResultType.all
    if output in (infer.ResultType.all, infer.ResultType.image):
        answer, evidence = await run_for(request, service.answer_with_evidence(inquiry))
        if evidence is None:
            if output is infer.ResultType.image:
                raise RequestError(
                    f'evidence: {answer.evidence_note} Ask with "model_only": true for the language model\'s answer '
                    "and map"
                )
            return answer_to_json(answer)
        is_whole = output is infer.ResultType.all
        return await run_in_threadpool(_evidence_response, answer, evidence, is_whole)
    return answer_to_json(await run_for(request, service.answer_soon(inquiry)))


def _evidence_response(answer: Answer, evidence: Evidence, is_whole: bool) -> Response:
    """Return an answer and its maps as MONAI Label's multipart reply, or the first map alone."""
    if not is_whole:
        headers = {"Content-Disposition": f'attachment; filename="{EVIDENCE_NAME}"'}
        return Response(evidence.nrrd(), media_type=_NRRD_TYPE, headers=headers)
    fields: dict[str, Any] = {"params": (None, json.dumps(answer_to_json(answer)), _JSON_TYPE)}
    stem, _, suffix = EVIDENCE_NAME.partition(".")
    for index in range(len(evidence.maps)):
        more = f"_{index + 1}" if index else ""
        name = f"{stem}{more}.{suffix}"
        fields[f"image{more}"] = (name, evidence.nrrd(index), _NRRD_TYPE)
    encoder = MultipartEncoder(fields=fields)
    return Response(encoder.to_string(), media_type=encoder.content_type)


@router.post(
    "/activelearning/{strategy}",
    tags=["ActiveLearning"],
    summary="Choose a study",
    responses={200: {"model": NextStudy}},
)
async def choose_next(
    request: Request, strategy: str, params: dict | None = None, user: User = Depends(_USER)
) -> Any:
    """Return the study to read next and why, without blocking the event loop as MONAI Label does.

    A caller without `client_id` is identified by user name and address.
    """
    host = request.client.host if request.client else ""
    asked = dict(params or {})
    asked["client_id"] = asked.get("client_id") or f"{user.username}@{host}"
    return await run_in_threadpool(activelearning.sample, strategy, asked, user.username)
