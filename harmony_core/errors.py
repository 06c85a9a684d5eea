"""Everything Harmony raises on purpose.

* HarmonyError                  a stable ``code``, a message that says what to do, the ``resource`` concerned
  + WireError                   something is wrong with the bytes; the same bytes are never tried again
    - ManifestRejected          found before the manifest is split: all of it is refused, the last good stays
      TooLarge NotUtf8 NotJson DuplicateKey TooDeep BadEnvelope UntrustedSignature WrongTarget WrongFleet
      StaleGeneration Equivocation ManifestExpired IssuedInFuture FloorLost InvalidManifest DuplicateScoreId
      OutOfScope WrongEpoch RootExpired
    - RootRejected              a document of who may sign what that does not count
    - EntryRefused              found inside one entry: that Score alone fails
      UnknownKind UnsupportedVersion InvalidScore SecretRefused MissingCapability UnknownDependency
      DependencyCycle
    - InvalidReply              what a device has answered cannot be read
    - BundleRefused             a bundle of which nothing is taken in
  + CapabilityError             the device could not do it; becomes that Score's FAILURE
    - TransientError            worth another try, after ``retry_after_s`` or the queue's own back-off
      CapabilityUnavailable TimedOut RegistryUnreachable ImageNotFound PortTaken UnitFailed ContainerFailed
      NetworkFailed NotReadyInTime WriteFailed JobAttemptFailed MountMissing HardwareMissing VolumeMissing
      ContainerNetworkMissing InUse AssetMissing AssetDamaged AssetsFull DownloadFailed InternalError
    - PermanentError            not worth another try until the Score or the device changes
      InvalidResource UnsafePath NotOurs PolicyRefused FactMissing SecretMissing OwnershipConflict Poisoned
      RolledBack InterpretationFailed NetworkRolledBack PriorTooLarge JobFailed JobInterrupted DidNotStick
      DownloadRefused NotInForce Drifted
  + RequestError                a device was asked something, and does not answer it; told to who asked
    - InvalidRequest RequestExpired RequestReplayed UnknownVerb TooManyRequests UnknownScore NothingLogged
      NotHeld AnswerTooLarge RequestFailed
      VolumeBusy NoRoom UnknownTransfer TransferDamaged ArchiveRefused LoadTakenBack
  + StoreError                  the bus or the disk could not take it; tried again
    - BusUnreachable RevisionConflict NoAnswer      never an Outcome
    - LedgerUnusable            what cannot be noted is not begun: then it is that Score's FAILURE
  + UsageError                  what a person typed, or a file they wrote; exit code 2
    - ConfigError ScoreFileError ComposeFileError NotImportable UnknownDevice (NotEnrolled)

`NotReady` is not an error but a signal: "not yet, look again then".

Errors carry data and do not log. They become Outcomes at one place, `harmony_core.interpretation`.
"""

from __future__ import annotations

import copy
from typing import ClassVar, Self

__all__ = [
    "AnswerTooLarge",
    "ArchiveRefused",
    "AssetDamaged",
    "AssetMissing",
    "AssetsFull",
    "BadEnvelope",
    "BootedSince",
    "BundleRefused",
    "BusUnreachable",
    "CapabilityError",
    "CapabilityUnavailable",
    "ClassConflict",
    "ComposeFileError",
    "ConfigError",
    "ContainerFailed",
    "ContainerNetworkMissing",
    "DependencyCycle",
    "DidNotStick",
    "DownloadFailed",
    "DownloadRefused",
    "Drifted",
    "DuplicateKey",
    "DuplicateScoreId",
    "EntryRefused",
    "Equivocation",
    "FactMissing",
    "FloorLost",
    "HardwareMissing",
    "HarmonyError",
    "ImageNotFound",
    "InUse",
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
    "LoadTakenBack",
    "ManifestExpired",
    "ManifestRejected",
    "MissingCapability",
    "MountMissing",
    "NetworkFailed",
    "NetworkRolledBack",
    "NoAnswer",
    "NoRoom",
    "NotEnrolled",
    "NotHeld",
    "NotImportable",
    "NotInForce",
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
    "RebootPostponed",
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
    "SecretRefused",
    "StaleGeneration",
    "StoreError",
    "TimedOut",
    "TooDeep",
    "TooLarge",
    "TooManyRequests",
    "TransferDamaged",
    "TransientError",
    "UnitFailed",
    "UnknownClass",
    "UnknownDependency",
    "UnknownDevice",
    "UnknownKind",
    "UnknownScore",
    "UnknownTransfer",
    "UnknownVerb",
    "UnsafePath",
    "UnsupportedVersion",
    "UntrustedSignature",
    "UsageError",
    "VolumeBusy",
    "VolumeMissing",
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
        """Return an error with the same content, also for a class that requires more than a message."""
        found = type(self).__new__(type(self), *self.args)
        found.__dict__.update(self.__dict__)
        found.__cause__ = self.__cause__
        return found.with_traceback(self.__traceback__)

    def with_resource(self, resource: str) -> Self:
        """Return a copy that names *resource*, an id: several resources may have met the very same error."""
        found = copy.copy(self)
        found.resource = resource
        return found


class WireError(HarmonyError):
    """Bytes that are not what docs/wire.md says. The same bytes are never tried again."""


class ManifestRejected(WireError):
    """The whole manifest is refused; the last good one stays in force."""


class TooLarge(ManifestRejected):
    """More bytes than the wire allows.

    To do: push fewer Scores to the device, or leave large content out of Scores: an image, or a package,
    can bring it.
    """


class NotUtf8(ManifestRejected):
    """Bytes that are not UTF-8 without a byte-order mark.

    To do: save the file as plain UTF-8, without a byte-order mark.
    """


class NotJson(ManifestRejected):
    """Text that is not strict JSON: truncated, empty, NaN or Infinity, lone surrogates, huge numbers.

    To do: correct what the message names by its place. Of a message that nobody has written by hand, find
    out who writes there.
    """


class DuplicateKey(ManifestRejected):
    """An object that names one key twice.

    To do: keep one of the two.
    """


class TooDeep(ManifestRejected):
    """Nested deeper than anything that Harmony writes.

    To do: flatten it.
    """


class BadEnvelope(ManifestRejected):
    """Not a DSSE v1 envelope of a Harmony manifest.

    To do: push again with `harmony`. If it comes back, find out who else writes to the message server.
    """


class UntrustedSignature(ManifestRejected):
    """No signature by a key that is pinned here.

    To do: have the device trust the key that has signed, or push with one that it trusts (`harmony trust
    show`, or `operator_keys` in its agent.toml).
    """


class WrongTarget(ManifestRejected):
    """Signed for another device.

    To do: push to the device that it is meant for.
    """


class WrongFleet(ManifestRejected):
    """Signed for another fleet.

    To do: push from the home of the fleet to which the device belongs.
    """


class StaleGeneration(ManifestRejected):
    """Older than the manifest in force.

    To do: push again: `harmony push-score AGENT --all`, from the home that pushed last. With `--force` it
    builds on what is known here.
    """


class Equivocation(ManifestRejected):
    """The same generation as the manifest in force, with other content.

    To do: push again, which makes a higher generation, and find out who has signed two of one number.
    """


class ManifestExpired(ManifestRejected):
    """Past its own ``expires_at``.

    To do: push again, with a later end (`--expires-in`) or none; or set the clock of the device.
    """


class IssuedInFuture(ManifestRejected):
    """Signed with an ``issued_at`` that is more than a day ahead of a clock that can be trusted.

    To do: set the clock of the machine that has signed it, and push again.
    """


class FloorLost(ManifestRejected):
    """It is not known any more what was accepted here last, so nothing can be told from what is older.

    To do: push again. If that is refused: stop the agent, run `harmony-agent reset-floor` on the device,
    and start it.
    """


class InvalidManifest(ManifestRejected):
    """Signed, but not a Manifest: a field is missing, unknown or of the wrong type.

    To do: push or apply again with a `harmony` of the agent's own version; update the older of the two.
    """


class DuplicateScoreId(ManifestRejected):
    """Two entries under one id.

    To do: give one of the two entries another id.
    """


class OutOfScope(ManifestRejected):
    """It changes what its signers may not change, by the fleet's root document.

    To do: have it signed by a key that may, as `harmony trust show` lists them; or let this key sign such
    kinds (`harmony trust add`).
    """


class WrongEpoch(ManifestRejected):
    """Signed for another epoch than the fleet's root document says; without one, than what was accepted.

    To do: push or apply again: what was signed before a key was taken out as stolen is void.
    """


class RootExpired(ManifestRejected):
    """The fleet's root document is past its own ``expires_at``: nothing new counts until it is renewed.

    To do: renew it: `harmony trust renew --expires-in 365d`. Or set the clock that is wrong.
    """


class RootRejected(WireError):
    """A root document that does not count: not whole, not of this fleet, not the next one, signed by too few.

    The one that counted before goes on to count.

    To do: look at the document that counts (`harmony trust show`), and have enough of its root keys sign
    the next version. What a device without one refuses: enroll the device again.
    """


class EntryRefused(WireError):
    """One entry cannot be interpreted here; the others proceed."""


class UnknownKind(EntryRefused):
    """No installed package registers this kind of Score.

    To do: install the package that has it, on the device and where you push from; or correct the kind
    (`harmony kinds`).
    """


class UnsupportedVersion(EntryRefused):
    """The kind is known, its specification's version is not.

    To do: update the package that has the kind, on the older side.
    """


class InvalidScore(EntryRefused):
    """The kind is known, but a field is missing, unknown or invalid.

    To do: correct the field that the message names; `harmony kinds KIND` lists them.
    """


class SecretRefused(EntryRefused):
    """A sealed secret is not for this device, Score, name or generation, nor for what that Score says now,
    cannot be opened, or has another value than the same version had before.

    To do: push the Score again, where the secret is, which seals it anew. If it was sealed for something
    else, or has another value, find out who has signed the manifest.
    """


class MissingCapability(EntryRefused):
    """The Score needs something that this device does not offer.

    To do: push it to another device, or install there what it needs; `harmony-agent check` on the device
    says what it offers.
    """


class UnknownDependency(EntryRefused):
    """``after`` names an id that the manifest does not contain.

    To do: push the Score that is named, or take its id out of `after`.
    """


class DependencyCycle(EntryRefused):
    """``after`` leads back to where it began.

    To do: take one of the ids out of `after`.
    """


class ClassConflict(EntryRefused):
    """Two classes of one priority want something else of one Score.

    To do: give one of the two classes a higher priority, or take the Score out of one of them.
    """


class InvalidReply(WireError):
    """Bytes that are no frame of an answer, or an item of it that is not what was asked for.

    To do: update the older side: the agent, or `harmony`.
    """


class BundleRefused(WireError):
    """A bundle that is not whole, cannot be read to its end, or is another device's. Nothing of it counts.

    To do: copy it again, or make it anew: `harmony bundle AGENT FILE`; and leave the stick where it is until
    `harmony-agent load` has ended.
    """


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
    """The capability is offered, but its daemon does not answer at the moment.

    To do: look on the device whether what the message names runs (`systemctl status`); it is tried again by
    itself.
    """


class MountMissing(TransientError):
    """The file system that a path was on, or is to be on, is not mounted. Nothing is done beneath.

    *point* is where it belongs.

    To do: mount it: the Score goes on by itself. Where that disk is gone for good, the message has the
    command.
    """

    def __init__(self, message: str, *, point: str, resource: str | None = None) -> None:
        super().__init__(message, resource=resource)
        self.point = point


class HardwareMissing(TransientError):
    """A device below /dev that is to be used, or mounted, is not there. A container goes on without it.

    *path* is its path.

    To do: plug it in, or correct its path: the Score goes on by itself as soon as it is there.
    """

    def __init__(self, message: str, *, path: str, resource: str | None = None) -> None:
        super().__init__(message, resource=resource)
        self.path = path


class TimedOut(TransientError):
    """A call outward, or a whole interpretation, took longer than its deadline.

    To do: look at what did not answer; it is tried again by itself. A Score's `interpret` must not wait,
    but raise `NotReady`.
    """


class RegistryUnreachable(TransientError):
    """The image's registry did not answer.

    To do: look whether the registry is up, and reached from there; a device tries again by itself, a push
    is repeated, or made with `--no-resolve`.
    """


class ImageNotFound(TransientError):
    """The registry answered, and has no such image. It may be pushed later.

    To do: correct name and tag of the image, push it to its registry, or give it the login that it wants.
    """


class PortTaken(TransientError):
    """Another process holds the port that is to be published.

    To do: stop what holds the port, or publish another one.
    """


class UnitFailed(TransientError):
    """A unit did not start or did not stay up; the message ends with its last lines.

    To do: read the lines that end the message, and `harmony logs AGENT SCORE`; correct the unit, or what it
    runs. It is tried again by itself.
    """


class ContainerFailed(TransientError):
    """A container did not start or did not stay up; the message ends with its last log lines.

    To do: read the lines that end the message, and `harmony logs AGENT SCORE`; correct the container, or
    its image. It is tried again by itself.
    """


class NetworkFailed(TransientError):
    """A network profile could not be brought up, or NetworkManager refused it; the message ends with why.

    To do: do what the message says: plug in the interface, name another one, or correct the profile. It is
    tried again by itself.
    """


class VolumeMissing(TransientError):
    """A volume that a container is to see is not there; podman would make an empty one unasked.

    To do: push a VolumeScore of that name, and have the container wait for it (`after`); or correct the
    name.
    """


class ContainerNetworkMissing(TransientError):
    """A network that a container is to be on is not there.

    To do: push a ContainerNetworkScore of that name, and have the container wait for it (`after`); or
    correct the name.
    """


class InUse(TransientError):
    """What is to be removed, or made anew, is used: by a container, or by processes.

    To do: remove the container that the message names, or the Score that makes it; or end the processes that
    it names. It is tried again by itself.
    """


class NotReadyInTime(TransientError):
    """It runs, but its readiness probe did not succeed before the deadline; ends with its last log lines.

    To do: read the lines that end the message; correct what it runs, its probe, or the time that it is
    given.
    """


class WriteFailed(TransientError):
    """The file system refused: full, read-only, input/output error. The old file is intact.

    To do: make room on the disk, or mount it so that it can be written; it is tried again by itself.
    """


class AssetMissing(TransientError):
    """The server has not all pieces of an asset, so that the device cannot fetch it. Nothing was changed.

    To do: push the Score again from where its file is, which puts those there that are missing.
    """


class AssetDamaged(TransientError):
    """What came as an asset, or what was kept of it, is not what its manifest names. Nothing was changed.

    To do: do what ends the message; what was kept on the device is fetched again by itself.
    """


class AssetsFull(TransientError):
    """There is no room on the device for an asset. Nothing was changed.

    To do: make room on the disk of the agent's directory, or raise `assets_max_mib` in agent.toml; it is
    tried again by itself.
    """


class DownloadFailed(TransientError):
    """A file could not be downloaded: its server is not reached or not believed, or does not give it. Nothing
    was changed.

    To do: do what ends the message: correct the address, or look at the server, the device's network and its
    clock. It is tried again by itself, and goes on where it was.
    """


class JobAttemptFailed(TransientError):
    """A job that may be run again has failed. With the end of what it wrote.

    To do: nothing, unless it goes on: it is run again by itself. What it wrote is at the end of the
    message.
    """


class InternalError(TransientError):
    """Something was raised that nobody expected: a defect of Harmony, or of what a capability stands on.

    To do: read the traceback on the device, `journalctl -u harmony-agent`, and report it. It is tried again
    by itself.
    """


class PermanentError(CapabilityError):
    """It will not work, however often it is tried, until the Score or the device changes."""


class InvalidResource(PermanentError):
    """A Score asked for a resource whose fields are not valid.

    To do: correct the Score's code or its fields: the message names the field.
    """


class UnsafePath(PermanentError):
    """A path that leaves its root, crosses a symbolic link, or is not a plain file where one is needed.

    To do: name another path, or do what the message says to make this one safe.
    """


class NotOurs(PermanentError):
    """Something of that name exists that Harmony did not make.

    To do: remove what is there by hand, as the message says, or choose another name.
    """


class PolicyRefused(PermanentError):
    """The device's own policy forbids it, whoever signed it.

    To do: push something that the device allows; or have its owner allow it, in /etc/harmony/policy.toml on
    the device.
    """


class FactMissing(PermanentError):
    """The Score read a fact or a label that this device does not have.

    To do: set the label (`harmony label AGENT NAME=VALUE`), or push the Score to a device that has the
    fact.
    """


class NetworkRolledBack(PermanentError):
    """A change of the network was not confirmed by a new connection, and has been taken back.

    To do: correct the profile, or what the firewall lets in, and push again; the device is reached as
    before.
    """


class PriorTooLarge(PermanentError):
    """What stands there is too much to be kept, so that it could not be put back.

    To do: move away by hand what is there, or set `discard_previous`.
    """


class DidNotStick(PermanentError):
    """The deed was accepted, and a look at it afterwards found something else than was wanted.

    *field* names what differs, such as ``mode``; *wanted* and *found* are its values in words. A secret
    value is never among them. *remedy* says what to do: it ends the message.

    To do: do what ends the message, which says what to write instead.
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


class DownloadRefused(PermanentError):
    """What is to be downloaded is something else than its Score says, or lies where this device does not
    fetch from. Nothing was changed.

    To do: look at what is at that address now; if it is what you want, give its `sha256` (and `size_bytes`),
    or else another address.
    """


class NotInForce(PermanentError):
    """The device was booted anew, and what awaited that is not in force: another boot would not help.

    To do: look on the device why, as the message says, and change the Score that asks for it.
    """


class SecretMissing(PermanentError):
    """A secret is not on this device: a `SecretRef` names no file, or ``${secret.…}`` has no value with it.

    To do: put the file into the device's secrets directory, root's and with mode 0600; or push the Score
    again, which seals the value for this device.
    """


class OwnershipConflict(PermanentError):
    """Another Score owns this resource, with a different specification.

    To do: take the resource out of one of the two Scores, or make both the same.
    """


class Poisoned(PermanentError):
    """Interpreting this Score killed the agent three times; not tried again until its spec changes.

    To do: correct the code of the Score's package on the device, then push another specification of it.
    """


class JobFailed(PermanentError):
    """A job has failed, and is not run again until it changes. With the end of what it wrote.

    To do: correct the job, and push it again: a changed job is run again. What it wrote is at the end of
    the message.
    """


class JobInterrupted(PermanentError):
    """A job was begun and cut short, and nobody knows how far it came; it is not run again by itself.

    To do: look on the device how far it came; then change the job, or let it be run again (`retry`).
    """


class RolledBack(PermanentError):
    """It did not converge in time, and its last known good revision is effective again until it changes.

    To do: correct the Score, and push it again; the message has why it failed.
    """


class Drifted(PermanentError):
    """Somebody else has changed it, and it is left so: for good, or until its repair is due.

    To do: look at what was changed (`harmony events AGENT SCORE`); to put it right: `harmony reconcile
    AGENT SCORE --enforce`.
    """


class InterpretationFailed(PermanentError):
    """`interpret` raised something that is not a Harmony error: a defect in the Score's own code.

    To do: correct the Score's code; the message has the line.
    """


class RequestError(HarmonyError):
    """A request that is not answered as it was meant. The device is as it was."""


class InvalidRequest(RequestError):
    """Signed, but not a Request: a field is missing, unknown or of the wrong type.

    To do: correct what was asked, or update the older side.
    """


class RequestExpired(RequestError):
    """It came too late, or one of two clocks is wrong; asked again, it may be answered.

    To do: ask again. If that does not help, set the clock that is wrong.
    """


class RequestReplayed(RequestError):
    """It was answered before. Never told to anybody: who asked has its answer.

    To do: nothing.
    """


class UnknownVerb(RequestError):
    """This agent cannot be asked that; a newer one may.

    To do: update the agent.
    """


class TooManyRequests(RequestError):
    """As much is being answered as may be at once.

    To do: ask again in a moment.
    """


class UnknownScore(RequestError):
    """The device has no Score of that id.

    To do: correct the id: `harmony status AGENT` lists the Scores.
    """


class NothingLogged(RequestError):
    """The Score has made nothing that writes a log.

    To do: ask of a Score with a service or a container. What a job wrote last is told by `harmony status`
    where it has failed; `harmony events AGENT SCORE` has what was changed.
    """


class NotHeld(RequestError):
    """Nothing of that Score is held back.

    To do: nothing.
    """


class AnswerTooLarge(RequestError):
    """The answer ends before its end. What was told so far is true.

    To do: ask for less, such as fewer `--lines`, or a later `--since`.
    """


class RebootPostponed(RequestError):
    """The device is not booted now: something is under way on it, or somebody says "not now".

    To do: wait until what the message names is over, and ask again; without `--no-wait`, `harmony reboot`
    does so by itself.
    """


class BootedSince(RequestError):
    """The boot that was to end has ended: the device is in another one than was asked for.

    To do: look at the device (`harmony status AGENT`); to boot it once more, ask again.
    """


class VolumeBusy(RequestError):
    """A volume's data is not saved or replaced now: who has it cannot be made to rest, or another transfer
    is under way.

    To do: do what the message says (`--stop`, or stop by hand what it names), and ask again.
    """


class NoRoom(RequestError):
    """A disk of the device has not the room for it.

    To do: free some, as much as the message says, and ask again.
    """


class UnknownTransfer(RequestError):
    """What was being sent is not there any more: its agent was started anew, or nobody asked for it for long.

    To do: begin again.
    """


class TransferDamaged(RequestError):
    """What arrived is not what was sent, by its SHA-256 or its length. Nothing was changed.

    To do: begin again. If it stays so, look for a failing disk at either end.
    """


class ArchiveRefused(RequestError):
    """What is to be loaded is no archive of a volume, or has something in it that no volume may have; or what
    is to be saved could not be loaded again for that.

    To do: load a file that `harmony volume save` has written, or a plain tar archive (not compressed) of
    files, directories and links, with no names that lead outside. Where it is to be saved, take out of the
    volume what the message says.
    """


class LoadTakenBack(RequestError):
    """A container did not stay up with the new data, so what was in the volume before is there again.

    To do: look at why, with `harmony logs`; correct the data or the container's version, and load again.
    """


class RequestFailed(RequestError):
    """The device tried, and could not; the message begins with the code of what went wrong there.

    To do: look up the code with which the message begins.
    """


class StoreError(HarmonyError):
    """The bus or the disk could not take it. Tried again with back-off.

    To do: look at the log of what the message names: the message server's, or the agent's.
    """


class BusUnreachable(StoreError):
    """NATS does not answer.

    To do: look whether the message server runs, and whether it is reached from there; it is tried again.
    """


class NotAllowed(StoreError):
    """The server does not allow it to this key.

    To do: ask who runs the server to let you in to push: `harmony add-operator NAME operator.pub`, without
    `--read-only`.
    """


class RevisionConflict(StoreError):
    """Somebody else wrote first.

    To do: look at what was written meanwhile, and do it again.
    """


class LedgerUnusable(StoreError):
    """The agent's database cannot be opened or written. What cannot be noted is not done.

    To do: make room on the disk of the device, or mount it so that it can be written; it goes on by itself.
    """


class NoAnswer(StoreError):
    """The device did not answer, or did not settle, in the time that somebody was willing to wait.

    To do: look whether the device is heard (`harmony status AGENT`) and what it says there; what was pushed
    stays pushed.
    """


class Unverified(StoreError):
    """It was not said by the device, or not now: the signature is missing or wrong.

    To do: find out who writes in the place of the device. If it was set up anew: `harmony enroll root@HOST
    --replace`.
    """


class UsageError(HarmonyError):
    """What a person typed cannot be done.

    To do: correct the command as the message says; `harmony COMMAND --help` lists what it takes.
    """


class UnknownDevice(UsageError):
    """There is no device of that id.

    To do: correct the id (`harmony agents`), or let the device in.
    """


class UnknownClass(UsageError):
    """There is no such class, or nothing was ever rolled out to it.

    To do: correct the name (`harmony rollout list`), or roll something out to the class.
    """


class NotEnrolled(UnknownDevice):
    """Nothing is pushed to a device that was never enrolled, or whose key is revoked, unless it is forced.

    To do: let the device in first: `harmony enroll root@HOST`.
    """


class ConfigError(UsageError):
    """A configuration file is missing, unreadable or wrong.

    To do: correct the file that the message names.
    """


class ScoreFileError(UsageError):
    """A Score file is missing, unreadable or wrong.

    To do: correct the file that the message names; all that is wrong with it is told at once.
    """


class ComposeFileError(UsageError):
    """A compose file, or a file that it names, is missing, unreadable or wrong, or asks for what a device
    cannot do.

    To do: correct the lines that the message names; all that is wrong is told at once, each with what to
    write instead. docs/compose-keys.md has what can be written.
    """


class NotImportable(UsageError):
    """What `harmony import` was given says something that no Score can say, or cannot be read.

    To do: change or leave out each flag or key that the message names, as it says; all of them are told at
    once.
    """
