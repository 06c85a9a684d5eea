"""AptSourceScore: a source of packages for apt, and the key by which its packages are known.

A privileged job. apt reads the source before it is in place, since one that it cannot read would have every
other call of apt fail; and its indexes are looked for afterwards.

apt reads nothing at all where two sources say of one place that others sign it. So each place has a job, too,
that does nothing: by its id, who signs there is for one Score to say, whatever the names of its files are. A
claim of the first job would not do, since what a Score has claimed by a former name goes before the new one
was read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import product
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from harmony_core import HasJobs, Inventory, Job, Outcome, Score, outcome_of
from harmony_core.content import Text
from harmony_core.resources import JobName, Seconds
from harmony_core.unit_text import script

from ._apt import APT, SOURCES, make_job
from ._text import FIRST_LINE
from ._undoing import DOES_NOTHING, job_name

__all__ = ["AptSourceScore"]

_KEYRINGS = "/etc/apt/keyrings"
_NOTES = "/var/lib/harmony-apt-sources"

# $1: its name. $2: its text. $3: its key. $4: the indexes that it is to have, each in a line.
# The note says which keys are ours, and as what apt has read it.
_HERE = f"""
name=$1 text=${{2-}} key=${{3-}} indexes=${{4-}}
file={SOURCES}/$name.sources keyring={_KEYRINGS}/$name.asc note={_NOTES}/$name
has() {{
    test -f "$1" && test ! -L "$1" && test "$(stat -c '%a %u %g' "$1")" = '644 0 0' &&
        test "$(cat "$1")" = "$2"
}}
is_right() {{ has "$file" "$text" && {{ test -z "$key" || has "$keyring" "$key"; }}; }}
is_there() {{ test -e "$1" || test -L "$1"; }}
is_noted() {{ grep -qsxF "$1" "$note"; }}
hash() {{ printf %s "$1" | sha256sum | cut -c 1-64; }}
was_read="read $(hash "$text $key")"
begins_as_ours() {{ test "$(head -n 1 "$1" 2> /dev/null)" = '{FIRST_LINE}'; }}
# A key that is not, or no longer, as we wrote it is somebody else's.
drop_key() {{
    ! is_there "$keyring" || ! is_noted "key $(hash "$(cat "$keyring")")" || rm "$keyring"
}}
"""

_IN_ORDER = f"""{_HERE}
is_right && is_noted "$was_read"
"""

_WRITE = f"""{_HERE}{APT}
scratch=/run/harmony-apt-source
leave() {{
    cat "$log"
    rm -r "$log" "$scratch"
}}
fail() {{ echo "$1" | fail_by; }}
fail_in_place() {{
    sed -i -e "s#$scratch/parts#{SOURCES}#g" -e "s#$scratch/key.asc#$keyring#g" \\
        -e '/^E: Some index files failed/d' "$log"
    fail_as_told
}}
missing_indexes() {{
    there=$(apt-get indextargets -o Dir::Etc::sourcelist="$1" -o Dir::Etc::sourceparts=/dev/null \\
        --format ' $(REPO_URI) $(RELEASE) $(CREATED_BY) $(COMPONENT) $(ARCHITECTURE) ')
    echo "$indexes" | while IFS= read -r each; do
        echo "$there" | grep -qF -- "$each" || echo "it has no index:${{each% }}; look at its suites," \\
            "components and architectures, of which dpkg takes" \\
            "$(echo $(dpkg --print-architecture) $(dpkg --print-foreign-architectures)) here"
    done
}}
# Of a source that is as we write it.
signer() {{ sed -n 's/^Signed-By: //p'; }}
places() {{
    uris= suites=
    while read -r field words; do
        case $field in
            URIs:) uris=$words ;;
            Suites:) suites=$words ;;
        esac
    done
    for uri in $uris; do
        for suite in $suites; do echo "${{uri%/}} $suite"; done
    done
}}
# Whether a file is ours, of another name, and says otherwise who signs one of these places. No other Score
# wants that: it is what this one was called before.
gives_way() {{
    other=${{1##*/}}
    test "$1" != "$file" && test -e "{_NOTES}/${{other%.sources}}" && begins_as_ours "$1" &&
        test "$(signer < "$1")" != "$(echo "$text" | signer)" &&
        echo "$text" | places | grep -qxF -- "$(places < "$1")"
}}
put() {{
    new=${{1%/*}}/.harmony.$name.tmp
    rm -f "$new"
    printf '%s\\n' "$2" > "$new"
    chmod 644 "$new"
    sync "$new"
    mv "$new" "$1"
    sync "${{1%/*}}"
}}
umask 022
rm -rf "$scratch"
mkdir -p "$scratch/parts" {_NOTES} {_KEYRINGS} {SOURCES}
! is_there "$file" || test -e "$note" || begins_as_ours "$file" ||
    fail "name: $file is there, and not by Harmony; take it away, or choose another name"
test -z "$key" || ! is_there "$keyring" || has "$keyring" "$key" || grep -qs '^key ' "$note" ||
    fail "key: $keyring is there with another one, and not by Harmony; take it away, or choose another name"

# First together with all others: where two say different things of one place, apt reads none at all.
for each in {SOURCES}/*; do
    test "$each" = "$file" || test ! -f "$each" || gives_way "$each" || cp "$each" "$scratch/parts"
done
echo "$text" > "$scratch/parts/$name.sources"
apt indextargets -o Dir::Etc::sourceparts="$scratch/parts" > "$log" 2>&1 || fail_in_place
: > "$log"

# Then alone. What was read as it is may be put back without the network.
echo "$key" > "$scratch/key.asc"
test -z "$key" || sed "s#^Signed-By: .*#Signed-By: $scratch/key.asc#" \\
    "$scratch/parts/$name.sources" > "$scratch/$name.sources"
test -n "$key" || cp "$scratch/parts/$name.sources" "$scratch"
if ! is_noted "$was_read" || test -n "$(missing_indexes "$scratch/$name.sources")"; then
    await_lock /var/lib/apt/lists/lock
    try update -o Dir::Etc::sourcelist="$scratch/$name.sources" -o Dir::Etc::sourceparts=/dev/null \\
        -o APT::Get::List-Cleanup=0 -o Acquire::AllowInsecureRepositories=false || fail_in_place
    missing_indexes "$scratch/$name.sources" | fail_by
fi

touch "$note"
if test -n "$key" && ! has "$keyring" "$key"; then
    echo "key $(hash "$key")" >> "$note"
    sync "$note"
    put "$keyring" "$key"
fi
sync "$note"
# Takes its place first, as it is: at no moment are both there, or none.
for each in {SOURCES}/*; do ! gives_way "$each" || mv "$each" "$file"; done
put "$file" "$text"
test -n "$key" || drop_key
is_right || fail "$file is not as it was written"
missing_indexes "$file" | fail_by
{{
    test -z "$key" || ! is_noted "key $(hash "$key")" || echo "key $(hash "$key")"
    echo "$was_read"
}} > {_NOTES}/.new
mv {_NOTES}/.new "$note"
sync {_NOTES}
"""

_TAKE_AWAY = f"""{_HERE}{APT}
test -e "$note" || exit 0
! begins_as_ours "$file" || rm "$file"
drop_key
sync {SOURCES}
rm "$note"
rmdir --ignore-fail-on-non-empty {_NOTES}
"""

_INDEXES = {"deb": "Packages", "deb-src": "Sources"}
_BEGIN = "-----BEGIN PGP PUBLIC KEY BLOCK-----"
_END = "-----END PGP PUBLIC KEY BLOCK-----"


_PATH = r"/[A-Za-z0-9._~:/?&=,;@!()*+%-]*"
_URI = re.compile(rf"https?://([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]+)?({_PATH})?|file:{_PATH}")


def _check_uri(uri: str) -> str:
    if "@" in uri.partition("//")[2].partition("/")[0]:
        raise ValueError(
            "everybody on the device could read this password; have it in a file below "
            "/etc/apt/auth.conf.d (apt_auth.conf(5)), by a FileScore with mode 0600"
        )
    if _URI.fullmatch(uri) is None:
        raise ValueError(
            f"{uri!r} is no place that apt is told of here; write https://, http:// or file:/, as in "
            "https://download.docker.com/linux/debian"
        )
    return uri


def _check_key(key: str) -> str:
    key = "\n".join(line.rstrip() for line in key.strip().splitlines())
    if "PRIVATE KEY" in key:
        raise ValueError(
            "that is a private key, by which packages are signed, and nobody else is to have it; give "
            "the public one, as gpg --armor --export prints it"
        )
    if not key.startswith(_BEGIN) or not key.endswith(_END):
        raise ValueError(
            f"must be armored: from {_BEGIN} to {_END}, as gpg --armor --export prints it"
        )
    if "\0" in key:
        raise ValueError(
            "has a NUL in it, so it is not whole; give it as gpg --armor --export prints it"
        )
    return key


Uri = Annotated[str, Field(max_length=1024), AfterValidator(_check_uri)]
Suite = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9./][A-Za-z0-9._~+/-]*$", max_length=128)
]
Component = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+/-]*$", max_length=128)
]
Architecture = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=32)]
Keyring = Annotated[
    str,
    StringConstraints(
        pattern=rf"^(/usr/share/keyrings|{_KEYRINGS})/[A-Za-z0-9][A-Za-z0-9._-]*\.(gpg|pgp|asc)$",
        max_length=255,
    ),
]


class AptSourceScore(Score[HasJobs]):
    """apt takes packages from this place, as long as they are signed by this key.

    Written to /etc/apt/sources.list.d and /etc/apt/keyrings once apt has read it, alone and with all others:
    one that it cannot read, since the key is another, it is not there or its date is over, is a failure in
    apt's own words, and leaves what was there; but for a file of its name that the same Score had as a
    FileScore, which goes before. What somebody changes is put back. By another ``name`` it takes the place of
    what it was before. PackageScores that need it are to be ``after`` it. When it goes, what was installed
    from it stays. The device must allow what runs as root (policy.toml: jobs = "any").
    """

    name: Annotated[JobName, Field(max_length=52)] = Field(
        description="Names the files: NAME.sources, and NAME.asc for the key; of at most 52 characters."
    )
    uris: Annotated[tuple[Uri, ...], Field(min_length=1)] = Field(
        description="Where, as in https://download.docker.com/linux/debian."
    )
    suites: Annotated[tuple[Suite, ...], Field(min_length=1)] = Field(
        description="Which suites, as in bookworm; with a / at its end, as in ./, a directory without "
        "components."
    )
    components: tuple[Component, ...] = Field(
        default=(), description="Which of their components, as in main."
    )
    architectures: tuple[Architecture, ...] = Field(
        default=(), description="For which architectures; all that dpkg takes unless set."
    )
    types: Annotated[tuple[Literal["deb", "deb-src"], ...], Field(min_length=1)] = Field(
        default=("deb",), description="deb for packages, deb-src for what they are built from."
    )
    key: Annotated[Text, Field(max_length=48 * 1024), AfterValidator(_check_key)] | None = Field(
        default=None, description="The public key that signs it, armored (ASCII)."
    )
    keyring: Keyring | None = Field(
        default=None,
        description="Instead of key: a file with keys that the device has, as in "
        "/usr/share/keyrings/debian-archive-keyring.gpg.",
    )
    time_limit_s: Seconds = Field(
        default=1800.0, description="How long it may take before it is ended, in seconds."
    )

    @model_validator(mode="after")
    def _is_whole(self) -> Self:
        if (self.key is None) == (self.keyring is None):
            raise ValueError(
                "give exactly one of key and keyring; apt takes nothing that is not signed"
            )
        if self.keyring == self._own_keyring:
            raise ValueError(f"{self.keyring} is where its own key would be; choose another name")
        for suite in self.suites:
            if suite.endswith("/") == bool(self.components):
                raise ValueError(
                    f"suites: {suite} has components exactly if there is no / at its end; give components, "
                    "as in main, or leave them out"
                )
        return self

    async def interpret(self, inventory: Inventory, topology: HasJobs) -> Outcome:  # noqa: ARG002
        source = f"{SOURCES}/{self.name}.sources"
        written = (source,) if self.key is None else (source, self._own_keyring)
        job = make_job(
            f"apt-source-{self.name}",
            self._run(_WRITE),
            unless=self._run(_IN_ORDER),
            undo=script(_TAKE_AWAY, self.name),
            asked_when_changed=written,
            time_limit_s=self.time_limit_s,
            claims=(f"path:{each}" for each in written),
        )
        return outcome_of(await topology.jobs.ensure(*self._places(), job))

    def _places(self) -> Iterator[Job]:
        """Yield for each place what no other Score may set to another value: the key that signs it."""
        places = sorted(
            {f"{uri.rstrip('/')} {suite}" for uri, suite in product(self.uris, self.suites)}
        )
        for place in places:
            words = f"{place} is signed by what {self._signed_by} has"
            yield Job(
                name=job_name(f"apt-place-{place}"),
                command=(*DOES_NOTHING, words),
                undo=DOES_NOTHING,
                retry=True,
            )

    @property
    def _signed_by(self) -> str:
        return self.keyring or self._own_keyring

    @property
    def _own_keyring(self) -> str:
        return f"{_KEYRINGS}/{self.name}.asc"

    def _run(self, text: str) -> tuple[str, ...]:
        return script(text, self.name, self._text(), self.key or "", "\n".join(self._indexes()))

    def _text(self) -> str:
        fields = {
            "Types": self.types,
            "URIs": self.uris,
            "Suites": self.suites,
            "Components": self.components,
            "Architectures": self.architectures,
            "Signed-By": (self._signed_by,),
        }
        lines = (f"{name}: {' '.join(words)}" for name, words in fields.items() if words)
        return "\n".join((FIRST_LINE, *lines))

    def _indexes(self) -> Iterator[str]:
        """Yield how `apt-get indextargets` lists each index, up to the part that may differ."""
        kinds = [_INDEXES[each] for each in self.types]
        components = self.components or ("",)
        for uri, suite, kind, component in product(self.uris, self.suites, kinds, components):
            # Sources have no architecture, nor has what has no components.
            has_architecture = bool(component) and kind == "Packages"
            for architecture in (self.architectures if has_architecture else ()) or ("",):
                place = uri if uri.endswith("/") else f"{uri}/"
                words = (place, suite, kind, component, architecture)
                yield f" {' '.join(each for each in words if each)} "
