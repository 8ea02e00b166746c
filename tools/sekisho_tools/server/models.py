"""Bodies of the management API, with hawkBit's names. Unknown members are ignored, as hawkBit does."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, StringConstraints

from .ddi import HUGE

Name = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f]*$")]
Words = Annotated[str, Field(max_length=512)]
Version = Annotated[str, StringConstraints(min_length=1, max_length=64, pattern=r"^[^\x00-\x1f\x7f]*$")]
Id = Annotated[int, Field(ge=1, lt=HUGE)]
Time = Annotated[int, Field(ge=0, lt=HUGE)]
Weight = Annotated[int, Field(ge=0, le=1000)]
ActionType = Literal["forced", "soft", "timeforced", "downloadonly"]
Percent = Annotated[str, StringConstraints(pattern=r"^(100|[0-9]{1,2})$")]


class NewTarget(BaseModel):
    """A device to be registered."""

    controllerId: Annotated[str, Field(min_length=1, max_length=256)]
    name: Name | None = None
    description: Words | None = None
    securityToken: Annotated[str, Field(max_length=128)] | None = None
    publicKey: Annotated[str, Field(pattern=r"^[0-9a-f]{64}([0-9a-f]{64})?$")] | None = None


class ChangeTarget(BaseModel):
    """What may be changed of a device."""

    name: Name | None = None
    description: Words | None = None
    securityToken: Annotated[str, Field(max_length=128)] | None = None
    publicKey: Annotated[str, Field(pattern=r"^[0-9a-f]{64}([0-9a-f]{64})?$")] | None = None
    requestAttributes: bool | None = None


class Pair(BaseModel):
    """Metadata."""

    key: Name
    value: Annotated[str, Field(max_length=4000)]
    targetVisible: bool = False


class NewModule(BaseModel):
    """A software module."""

    name: Name
    version: Version
    type: Name
    vendor: Name | None = None
    description: Words | None = None


class Ref(BaseModel):
    """A reference by id."""

    id: Id


class NewSet(BaseModel):
    """A distribution set."""

    name: Name
    version: Version
    type: Name
    description: Words | None = None
    modules: Annotated[list[Ref], Field(max_length=1000)] = []
    requiredMigrationStep: bool = False


class Window(BaseModel):
    """A maintenance window."""

    schedule: Annotated[str, Field(min_length=1, max_length=100)]
    duration: Annotated[str, Field(min_length=1, max_length=8)]
    timezone: Annotated[str, Field(min_length=1, max_length=6)]


class Assignment(BaseModel):
    """How something is assigned."""

    type: ActionType = "forced"
    forcetime: Time | None = None
    weight: Weight | None = None
    confirmationRequired: bool = True
    maintenanceWindow: Window | None = None


class AssignSet(Assignment):
    """A set for one device."""

    id: Id


class AssignTarget(Assignment):
    """A device for one set."""

    id: Annotated[str, Field(min_length=1, max_length=256)]


class ForceType(BaseModel):
    """Soft becomes forced."""

    forceType: Literal["forced"]


class Confirmation(BaseModel):
    """Confirm or deny for a device."""

    confirmation: Literal["confirmed", "denied"]
    code: Annotated[int, Field(gt=-HUGE, lt=HUGE)] | None = None
    details: Annotated[list[Annotated[str, Field(max_length=512)]], Field(max_length=50)] = []


class AutoConfirm(BaseModel):
    """Who switches auto-confirm on, and why."""

    initiator: Annotated[str, Field(max_length=64)] | None = None
    remark: Words | None = None


class Condition(BaseModel):
    """A threshold in whole percent of a group."""

    condition: Literal["THRESHOLD"] = "THRESHOLD"
    expression: Percent = "50"


class SuccessAction(BaseModel):
    """What follows a group that is good enough."""

    action: Literal["NEXTGROUP", "PAUSE"] = "NEXTGROUP"
    expression: str = ""


class ErrorAction(BaseModel):
    """What follows when too many failed."""

    action: Literal["PAUSE"] = "PAUSE"
    expression: str = ""


class GroupRules(BaseModel):
    """The rules of a group; missing ones are those of the rollout."""

    successCondition: Condition | None = None
    successAction: SuccessAction | None = None
    errorCondition: Condition | None = None
    errorAction: ErrorAction | None = None
    confirmationRequired: bool | None = None


class NewGroup(GroupRules):
    """A group of a rollout."""

    name: Name | None = None
    description: Words | None = None
    targetPercentage: Annotated[float, Field(gt=0, le=100)] = 100.0
    targetFilterQuery: Annotated[str, Field(max_length=1000)] | None = None


class NewRollout(GroupRules):
    """A rollout. ``silenceTimeout`` (seconds) is ours."""

    name: Name
    description: Words | None = None
    distributionSetId: Id
    targetFilterQuery: Annotated[str, Field(min_length=1, max_length=1000)]
    type: ActionType = "forced"
    forcetime: Time | None = None
    weight: Weight | None = None
    startAt: Time | None = None
    amountGroups: Annotated[int, Field(ge=1, le=500)] | None = None
    groups: Annotated[list[NewGroup], Field(min_length=1, max_length=500)] | None = None
    silenceTimeout: Annotated[int, Field(ge=10, le=30 * 86400)] | None = None


class Farewell(BaseModel):
    """Why a device is decommissioned."""

    why: Annotated[str, Field(min_length=1, max_length=512)]


class Value(BaseModel):
    """A setting's value."""

    value: Any


class NewEnrolment(BaseModel):
    """A one-time token for one device, or for any (``controllerId`` absent); valid for ``seconds``."""

    controllerId: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    note: Words | None = None
    seconds: Annotated[int, Field(ge=60, le=90 * 86400)] = 7 * 86400
