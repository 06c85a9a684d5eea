# Run on a device, by `harmony enroll` or at its first boot: installs the agent, lets it in, and starts it. It may be ended at
# any point, and run again: each step looks first, and does what is not done. VERSION is set, and OPTIONS of
# `harmony-agent enroll`; on standard input is a tar archive of the wheel, its locks, forget_broken.py and the invitation.
set -eu
say() { echo "harmony: $*"; }
fail() { echo "harmony: $*" >&2; exit 97; }
[ "$(id -u)" = 0 ] || fail "this must be root: connect as root@HOST, or add --sudo"
command -v systemctl >/dev/null || fail "there is no systemd on this device"
python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || fail "python3 is older than 3.11, or missing; update the device's system"
# Whatever was started holds it: also a pip that goes on after the connection was lost.
exec 9>/run/harmony-install.lock
flock -w 300 9 || fail "the agent is being installed by another harmony enroll, or updated by an AgentScore; wait for that, or end it (systemctl stop harmony-update)"
directory=/run/harmony-install
trap 'rm -rf "$directory"' EXIT
trap 'exit 1' HUP INT TERM
rm -rf "$directory"
mkdir -m 700 "$directory"
tar -xf - -C "$directory"
say "installing harmony-agent $VERSION, as far as it is not there"
python3 -I "$directory/forget_broken.py" /opt/harmony "$directory"/harmony-*.whl
python3 -m venv /opt/harmony || fail "python3 -m venv failed; on Debian: apt install python3-venv"
pip="/opt/harmony/bin/python -m pip --quiet --disable-pip-version-check install --require-hashes"
$pip -r "$directory/build.lock"
$pip --no-build-isolation -r "$directory/agent.lock"
# Of an update by an AgentScore that was on trial: this is another agent now, which nothing is to take back.
rm -rf /opt/harmony/.on-trial.json /opt/harmony.next /var/lib/harmony-update/database
for unit in /opt/harmony/lib/python3*/site-packages/harmony_agent/deploy/harmony-agent.service; do
    cmp -s "$unit" /etc/systemd/system/harmony-agent.service || cp "$unit" /etc/systemd/system/
done
systemctl daemon-reload
mkdir -p -m 700 /etc/harmony
/opt/harmony/bin/harmony-agent enroll $OPTIONS @"$directory/invitation"
systemctl enable --quiet harmony-agent
systemctl restart harmony-agent
say "the agent runs"
