# Run on a device, by `harmony enroll`: installs the agent, lets it in, and starts it. May be run again until it was let in.
# VERSION and REPLACE are set; on standard input is a tar archive of wheel, lock and invitation.
set -eu
say() { echo "harmony: $*"; }
fail() { echo "harmony: $*" >&2; exit 97; }
[ "$(id -u)" = 0 ] || fail "this must be root: connect as root@HOST, or add --sudo"
command -v systemctl >/dev/null || fail "there is no systemd on this device"
python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || fail "python3 is older than 3.11, or missing; update the device's system"
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
trap 'exit 1' HUP INT TERM
tar -xf - -C "$directory"
if [ "$(/opt/harmony/bin/harmony-agent version 2>/dev/null)" = "$VERSION" ]; then
    say "harmony-agent $VERSION is installed already"
else
    say "installing harmony-agent $VERSION"
    python3 -m venv /opt/harmony || fail "python3 -m venv failed; on Debian: apt install python3-venv"
    pip="/opt/harmony/bin/pip --quiet --disable-pip-version-check install"
    $pip --require-hashes -r "$directory/agent.lock"
    $pip --no-deps --force-reinstall "$directory"/*.whl
fi
for unit in /opt/harmony/lib/python3*/site-packages/harmony_agent/deploy/harmony-agent.service; do
    cmp -s "$unit" /etc/systemd/system/harmony-agent.service || cp "$unit" /etc/systemd/system/
done
systemctl daemon-reload
mkdir -p -m 700 /etc/harmony
/opt/harmony/bin/harmony-agent enroll --wait-s 60 @"$directory/invitation" $REPLACE
systemctl enable --quiet harmony-agent
systemctl restart harmony-agent
say "the agent runs"
