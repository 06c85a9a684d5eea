# Run on a device, by `harmony retire --uninstall`: stops the agent of the device AGENT, and removes it with all that it keeps.
# What Scores made stays as it is, and so do the owner's policy.toml and secrets. It may be ended at any point, and run again.
set -eu
say() { echo "harmony: $*"; }
fail() { echo "harmony: $*" >&2; exit 97; }
[ "$(id -u)" = 0 ] || fail "this must be root: connect as root@HOST, or add --sudo"
command -v systemctl >/dev/null || fail "there is no systemd on this device"
if [ -e /etc/harmony/agent.toml ]; then
    grep -qxF "agent_id = \"$AGENT\"" /etc/harmony/agent.toml || fail "by /etc/harmony/agent.toml, this is another device than $AGENT"
fi
# What updates the agent would start it again.
systemctl disable --quiet --now harmony-update 2>/dev/null || :
rm -f /etc/systemd/system/harmony-update.service
systemctl disable --quiet --now harmony-agent 2>/dev/null || :
! systemctl is-active --quiet harmony-agent || fail "the agent does not stop: systemctl status harmony-agent"
rm -rf /etc/systemd/system/harmony-agent.service /etc/systemd/system/harmony-agent.service.d
systemctl daemon-reload
rm -rf /opt/harmony /opt/harmony.next /var/lib/harmony /var/lib/harmony-update /run/harmony
# Last: until it is gone, another run knows whose device this is.
rm -f /etc/harmony/agent.toml.new /etc/harmony/floor.copy.json /etc/harmony/agent.toml
rmdir /etc/harmony 2>/dev/null || :
say "the agent is gone"
