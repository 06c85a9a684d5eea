"""Everything Harmony raises on purpose.

* HarmonyError                  a stable ``code``, a message that says what to do, the ``resource`` concerned
  + WireError                   something is wrong with the bytes; the same bytes are never tried again
    - ManifestRejected          found before the manifest is split: all of it is refused, the last good stays
      TooLarge NotUtf8 NotJson DuplicateKey TooDeep BadEnvelope UntrustedSignature WrongTarget WrongFleet
      StaleGeneration Equivocation ManifestExpired IssuedInFuture FloorLost InvalidManifest DuplicateScoreId
      OutOfScope WrongEpoch RootExpired
    - RootRejected              a document of who may sign what that does not count
    - EntryRefused              found inside one entry: that Score alone fails
      UnknownKind UnsupportedVersion InvalidScore MissingCapability UnknownDependency DependencyCycle
    - InvalidReply              what a device has answered cannot be read
  + CapabilityError             the device could not do it; becomes that Score's FAILURE
    - TransientError            worth another try, after ``retry_after_s`` or the queue's own back-off
      CapabilityUnavailable TimedOut RegistryUnreachable ImageNotFound PortTaken UnitFailed ContainerFailed
      NetworkFailed NotReadyInTime WriteFailed JobAttemptFailed MountMissing InternalError
    - PermanentError            not worth another try until the Score or the device changes
      InvalidResource UnsafePath NotOurs PolicyRefused FactMissing SecretMissing OwnershipConflict Poisoned
      RolledBack InterpretationFailed NetworkRolledBack PriorTooLarge JobFailed JobInterrupted DidNotStick
      Drifted
  + RequestError                a device was asked something, and does not answer it; told to who asked
    - InvalidRequest RequestExpired RequestReplayed UnknownVerb TooManyRequests UnknownScore NothingLogged
      NotHeld AnswerTooLarge RequestFailed
  + StoreError                  the bus or the disk could not take it; tried again
    - BusUnreachable RevisionConflict NoAnswer      never an Outcome
    - LedgerUnusable            what cannot be noted is not begun: then it is that Score's FAILURE
  + UsageError                  what a person typed, or a file they wrote; exit code 2
    - ConfigError ScoreFileError UnknownDevice (NotEnrolled)

`NotReady` is not an error but a signal: "not yet, look again then".

Errors carry data and do not log. They become Outcomes at one place, `harmony_core.interpretation`.
"""

from __future__ import annotations

from typing import ClassVar, Self

__all__ = [
    "AnswerTooLarge",
    "BadEnvelope",
    "BusUnreachable",
    "CapabilityError",
    "CapabilityUnavailable",
    "ClassConflict",
    "ConfigError",
    "ContainerFailed",
    "DependencyCycle",
    "DidNotStick",
    "Drifted",
    "DuplicateKey",
    "DuplicateScoreId",
    "EntryRefused",
    "Equivocation",
    "FactMissing",
    "FloorLost",
    "HarmonyError",
    "ImageNotFound",
    "InternalError",
    "InterpretationFailed",
    "InvalidManifest",
    "InvalidReply",
    "InvalidRequest",
    "InvalidResource",
    "InvalidScore",
    "IssuedInFuture",
    "JobAttemptFailed",
    "JobFailed",
    "JobInterrupted",
    "LedgerUnusable",
    "ManifestExpired",
    "ManifestRejected",
    "MissingCapability",
    "MountMissing",
    "NetworkFailed",
    "NetworkRolledBack",
    "NoAnswer",
    "NotEnrolled",
    "NotHeld",
    "NotJson",
    "NotOurs",
    "NotReadyInTime",
    "NotUtf8",
    "NothingLogged",
    "OutOfScope",
    "OwnershipConflict",
    "PermanentError",
    "Poisoned",
    "PolicyRefused",
    "PortTaken",
    "PriorTooLarge",
    "RegistryUnreachable",
    "RequestError",
    "RequestExpired",
    "RequestFailed",
    "RequestReplayed",
    "RevisionConflict",
    "RolledBack",
    "RootExpired",
    "RootRejected",
    "ScoreFileError",
    "SecretMissing",
    "StaleGeneration",
    "StoreError",
    "TimedOut",
    "TooDeep",
    "TooLarge",
    "TooManyRequests",
    "TransientError",
    "UnitFailed",
    "UnknownClass",
    "UnknownDependency",
    "UnknownDevice",
    "UnknownKind",
    "UnknownScore",
    "UnknownVerb",
    "UnsafePath",
    "UnsupportedVersion",
    "UntrustedSignature",
    "UsageError",
    "WireError",
    "WriteFailed",
    "WrongEpoch",
    "WrongFleet",
    "WrongTarget",
]


class HarmonyError(Exception):
    """Base of everything Harmony raises on purpose.

    ``code`` is stable: it is the class's name, it goes over the wire, and people may match on it.
    """

    code: ClassVar[str] = "HarmonyError"

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls.code = cls.__name__

    def __init__(self, message: str, *, resource: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.resource = resource

    def __copy__(self) -> Self:
        """Return an error that says the same, also of a class that asks for more than a message."""
        found = type(self).__new__(type(self), *self.args)
        found.__dict__.update(self.__dict__)
        found.__cause__ = self.__cause__
        return found.with_traceback(self.__traceback__)


class WireError(HarmonyError):
    """Bytes that are not what docs/wire.md says. The same bytes are never tried again."""


class ManifestRejected(WireError):
    """The whole manifest is refused; the last good one stays in force."""


class TooLarge(ManifestRejected):
    """More bytes than the wire allows."""


class NotUtf8(ManifestRejected):
    """Bytes that are not UTF-8 without a byte-order mark."""


class NotJson(ManifestRejected):
    """Text that is not strict JSON: truncated, empty, NaN or Infinity, lone surrogates, huge numbers."""


class DuplicateKey(ManifestRejected):
    """An object that names one key twice."""


class TooDeep(ManifestRejected):
    """Nested deeper than anything that Harmony writes."""


class BadEnvelope(ManifestRejected):
    """Not a DSSE v1 envelope of a Harmony manifest."""


class UntrustedSignature(ManifestRejected):
    """No signature by a key that is pinned here."""


class WrongTarget(ManifestRejected):
    """Signed for another device."""


class WrongFleet(ManifestRejected):
    """Signed for another fleet."""


class StaleGeneration(ManifestRejected):
    """Older than the manifest in force."""


class Equivocation(ManifestRejected):
    """The same generation as the manifest in force, with other content."""


class ManifestExpired(ManifestRejected):
    """Past its own ``expires_at``."""


class IssuedInFuture(ManifestRejected):
    """Signed with an ``issued_at`` that is more than a day ahead of a clock that can be trusted."""


class FloorLost(ManifestRejected):
    """It is not known any more what was accepted here last, so nothing can be told from what is older."""


class InvalidManifest(ManifestRejected):
    """Signed, but not a Manifest: a field is missing, unknown or of the wrong type."""


class DuplicateScoreId(ManifestRejected):
    """Two entries under one id."""


class OutOfScope(ManifestRejected):
    """It changes what its signers may not change, by the fleet's root document."""


class WrongEpoch(ManifestRejected):
    """Signed for another epoch than the fleet's root document says."""


class RootExpired(ManifestRejected):
    """The fleet's root document is past its own ``expires_at``: nothing new counts until it is renewed."""


class RootRejected(WireError):
    """A root document that does not count: not whole, not of this fleet, not the next one, signed by too few.

    The one that counted before goes on to count.
    """


class EntryRefused(WireError):
    """One entry cannot be interpreted here; the others proceed."""


class UnknownKind(EntryRefused):
    """No installed package registers this kind of Score."""


class UnsupportedVersion(EntryRefused):
    """The kind is known, its specification's version is not."""


class InvalidScore(EntryRefused):
    """The kind is known, but a field is missing, unknown or invalid."""


class MissingCapability(EntryRefused):
    """The Score needs something that this device does not offer."""


class UnknownDependency(EntryRefused):
    """``after`` names an id that the manifest does not contain."""


class DependencyCycle(EntryRefused):
    """``after`` leads back to where it began."""


class ClassConflict(EntryRefused):
    """Two classes of one priority want something else of one Score."""


class InvalidReply(WireError):
    """Bytes that are no frame of an answer, or an item of it that is not what was asked for."""


class CapabilityError(HarmonyError):
    """The device was asked for something and could not do it."""


class TransientError(CapabilityError):
    """It may work later: after *retry_after_s* seconds, or when the queue's back-off says so (None)."""

    def __init__(
        self, message: str, *, resource: str | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message, resource=resource)
        self.retry_after_s = retry_after_s


class CapabilityUnavailable(TransientError):
    """The capability is offered, but its daemon does not answer at the moment."""


class MountMissing(TransientError):
    """The file system that a path was on, or is to be on, is not mounted. Nothing is done beneath.

    *point* is where it belongs.
    """

    def __init__(self, message: str, *, point: str, resource: str | None = None) -> None:
        super().__init__(message, resource=resource)
        self.point = point


class TimedOut(TransientError):
    """A call outward, or a whole interpretation, took longer than its deadline."""


class RegistryUnreachable(TransientError):
    """The image's registry did not answer."""


class ImageNotFound(TransientError):
    """The registry answered, and has no such image. It may be pushed later."""


class PortTaken(TransientError):
    """Another process holds the port that is to be published."""


class UnitFailed(TransientError):
    """A unit did not start or did not stay up; the message ends with its last lines."""


class ContainerFailed(TransientError):
    """A container did not start or did not stay up; the message ends with its last log lines."""


class NetworkFailed(TransientError):
    """A network profile could not be brought up, or NetworkManager refused it; the message ends with why."""


class NotReadyInTime(TransientError):
    """It runs, but its readiness probe did not succeed before the deadline; ends with its last log lines."""


class WriteFailed(TransientError):
    """The file system refused: full, read-only, input/output error. The old file is intact."""


class JobAttemptFailed(TransientError):
    """A job that may be run again has failed. With the end of what it wrote."""


class InternalError(TransientError):
    """Something was raised that nobody expected: a defect of Harmony, or of what a capability stands on."""


class PermanentError(CapabilityError):
    """It will not work, however often it is tried, until the Score or the device changes."""


class InvalidResource(PermanentError):
    """A Score asked for a resource whose fields are not valid."""


class UnsafePath(PermanentError):
    """A path that leaves its root, crosses a symbolic link, or is not a plain file where one is needed."""


class NotOurs(PermanentError):
    """Something of that name exists that Harmony did not make."""


class PolicyRefused(PermanentError):
    """The device's own policy forbids it, whoever signed it."""


class FactMissing(PermanentError):
    """The Score read a fact or a label that this device does not have."""


class NetworkRolledBack(PermanentError):
    """A change of the network was not confirmed by a new connection, and has been taken back."""


class PriorTooLarge(PermanentError):
    """What stands there is too much to be kept, so that it could not be put back."""


class DidNotStick(PermanentError):
    """The deed was accepted, and a look at it afterwards found something else than was wanted.

    *field* names what differs, such as ``mode``; *wanted* and *found* are its values in words. A secret
    value is never among them. *remedy* says what to do: it ends the message.
    """

    def __init__(
        self,
        what: str,
        *,
        field: str,
        wanted: str,
        found: str,
        remedy: str,
        resource: str | None = None,
    ) -> None:
        super().__init__(
            f"{what}: {field} {wanted} did not stick, {found} is found afterwards; {remedy}",
            resource=resource,
        )
        self.what = what
        self.field = field
        self.wanted = wanted
        self.found = found
        self.remedy = remedy


class SecretMissing(PermanentError):
    """A `SecretRef` names a secret that this device does not hold."""


class OwnershipConflict(PermanentError):
    """Another Score owns this resource, with a different specification."""


class Poisoned(PermanentError):
    """Interpreting this Score killed the agent three times; not tried again until its spec changes."""


class JobFailed(PermanentError):
    """A job has failed, and is not run again until it changes. With the end of what it wrote."""


class JobInterrupted(PermanentError):
    """A job was begun and cut short, and nobody knows how far it came; it is not run again by itself."""


class RolledBack(PermanentError):
    """It did not converge in time, and what was good before is in force again until it changes."""


class Drifted(PermanentError):
    """Somebody else has changed it, and it is left so: for good, or until its repair is due."""


class InterpretationFailed(PermanentError):
    """`interpret` raised something that is not a Harmony error: a defect in the Score's own code."""


class RequestError(HarmonyError):
    """A request that is not answered as it was meant. The device is as it was."""


class InvalidRequest(RequestError):
    """Signed, but not a Request: a field is missing, unknown or of the wrong type."""


class RequestExpired(RequestError):
    """It came too late, or one of two clocks is wrong; asked again, it may be answered."""


class RequestReplayed(RequestError):
    """It was answered before. Never told to anybody: who asked has its answer."""


class UnknownVerb(RequestError):
    """This agent cannot be asked that; a newer one may."""


class TooManyRequests(RequestError):
    """As much is being answered as may be at once."""


class UnknownScore(RequestError):
    """The device has no Score of that id."""


class NothingLogged(RequestError):
    """The Score has made nothing that writes a log."""


class NotHeld(RequestError):
    """Nothing of that Score is held back."""


class AnswerTooLarge(RequestError):
    """The answer ends before its end. What was told so far is true."""


class RequestFailed(RequestError):
    """The device tried, and could not; the message begins with the code of what went wrong there."""


class StoreError(HarmonyError):
    """The bus or the disk could not take it. Tried again with back-off."""


class BusUnreachable(StoreError):
    """NATS does not answer."""


class NotAllowed(StoreError):
    """The server does not allow it to this key."""


class RevisionConflict(StoreError):
    """Somebody else wrote first."""


class LedgerUnusable(StoreError):
    """The agent's database cannot be opened or written. What cannot be noted is not done."""


class NoAnswer(StoreError):
    """The device did not answer, or did not settle, in the time that somebody was willing to wait."""


class Unverified(StoreError):
    """It was not said by the device, or not now: the signature is missing or wrong."""


class UsageError(HarmonyError):
    """What a person typed cannot be done; exit code 2."""


class UnknownDevice(UsageError):
    """There is no device of that id."""


class UnknownClass(UsageError):
    """There is no such class, or nothing was ever rolled out to it."""


class NotEnrolled(UnknownDevice):
    """Nothing is pushed to a device that was never enrolled, unless it is forced."""


class ConfigError(UsageError):
    """A configuration file is missing, unreadable or wrong."""


class ScoreFileError(UsageError):
    """A Score file is missing, unreadable or wrong."""
