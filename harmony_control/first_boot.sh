# Run on a device by harmony-first-boot.service, which a user-data brought (`harmony invite --first-boot`): installs the agent
# and enrols it by install.sh, then removes the invitation. It may be ended at any point; systemd runs it again until it is
# through. All that it needs lies beside it.
set -eu
here=/var/lib/harmony-first-boot
if [ ! -e "$here/enrolled" ]; then
    # Ubuntu's images come without it.
    if ! python3 -c 'import ensurepip' 2>/dev/null; then
        apt-get update -q
        DEBIAN_FRONTEND=noninteractive apt-get install -qy python3-venv
    fi
    # With packages on the boot partition, no index is asked. Whichever are there, the lock has the hash of each that counts.
    for packages in /boot/firmware/harmony-packages /boot/harmony-packages; do
        [ ! -d "$packages" ] || export PIP_NO_INDEX=1 PIP_FIND_LINKS="$packages"
    done
    OPTIONS="--wait-s 3600"
    if [ -e "$here/chooses-id" ]; then
        # All cards of one image have one host name. The board's serial number is its own.
        case "$(uname -n)" in
            raspberrypi | ubuntu | debian | localhost | localhost.*)
                serial=$(tr -cd 0-9a-f 2>/dev/null </sys/firmware/devicetree/base/serial-number) || serial=
                [ -z "$serial" ] || OPTIONS="$OPTIONS --id pi-$serial"
                ;;
        esac
    fi
    VERSION=$(cat "$here/version")
    export VERSION OPTIONS
    # Without a pipe, of which only the last status would count.
    # The invitation is in it.
    (umask 077 && tar -cf "$here/package.tar" -C "$here/package" .)
    sh "$here/install.sh" <"$here/package.tar"
    rm "$here/package.tar"
    touch "$here/enrolled"
fi
# From here on the invitation is of no use. On the card there is again what was there before it, and cloud-init reads that at
# the next boot; it is the same instance to it, so nothing of it is done twice.
for seed in /boot/firmware/user-data /boot/user-data; do
    if grep -qsFf "$here/package/invitation" "$seed"; then
        cp "$here/user-data" "$seed.new"
        sync "$seed.new"
        mv "$seed.new" "$seed"
    fi
done
rm -f /var/lib/cloud/instances/*/obj.pkl /var/lib/cloud/instances/*/user-data.txt* /var/lib/cloud/instances/*/cloud-config.txt
rm -f /run/cloud-init/combined-cloud-config.json
sync
systemctl disable --quiet harmony-first-boot
rm -rf /etc/systemd/system/harmony-first-boot.service "$here"
systemctl daemon-reload
echo "harmony: the first boot is done, and the invitation is gone from here"
