"""The state of the training, under `/radfound/`."""

from __future__ import annotations

from fastapi import APIRouter, Depends
from monailabel.config import settings
from monailabel.endpoints.user.auth import RBAC, User
from monailabel.interfaces.utils.app import app_instance

from radfound.wire import TrainingStatus

from ..trainers import RadFoundTrainer

router = APIRouter(prefix="/radfound", tags=["RadFound"])

_USER = RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER)


@router.get("/training", summary="Get the state of the training")
def training(user: User = Depends(_USER)) -> TrainingStatus:
    """Return the running training or the last one: phase, steps, time left and the gate's checks."""
    trainer: RadFoundTrainer = app_instance().trainers["radfound"]
    return trainer.status()
