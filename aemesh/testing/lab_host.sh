# Furnishes a host of the lab, then stays in it as its holder: as long as this process
# lives, so do the host's namespaces.  Its input ends when the lab's owner dies.
# Runs as root in fresh network, mount, UTS and IPC namespaces; settings come as
# environment variables from lab_namespaces.py.
set -eu

# --- the network ------------------------------------------------------------------
# Addresses are usable at once: nobody else on this bridge could hold them.
if [ -d /proc/sys/net/ipv6 ]; then
    echo 0 > /proc/sys/net/ipv6/conf/eth0/accept_dad
    echo 0 > /proc/sys/net/ipv6/conf/eth0/dad_transmits
    echo 0 > /proc/sys/net/ipv6/conf/eth0/accept_ra
fi
# Ordinary users may ping, as systemd sets it on a real machine.
ping_users=/proc/sys/net/ipv4/ping_group_range
{ echo "0 2147483647" > $ping_users; } 2>/dev/null || echo "0 0" > $ping_users
ip -batch - <<BATCH
link set lo up
link set eth0 up
addr add $IPV4/24 dev eth0
addr add $IPV6/64 dev eth0 nodad
route add 224.0.0.0/4 dev eth0
BATCH
hostname "$NAME"

# --- the files --------------------------------------------------------------------
# What is to be seen is collected in a staging place first, because the covers that
# follow may hide where it comes from (the checkout may lie in /tmp, or beneath /root).
stage=$FOLDER/stage
mount -t tmpfs -o mode=755 lab "$stage"
mkdir -p "$stage/aemesh/checkout" "$stage/aemesh/venv" "$stage/aemesh/base" \
    "$stage/aemesh/folder" "$stage/aemesh/cgroup" "$stage/aemesh/stick"
show() {
    mount --bind "$1" "$2"
    mount -o remount,bind,ro "$2"
}
show "$CHECKOUT" "$stage/aemesh/checkout"
[ -z "$VENV" ] || show "$VENV" "$stage/aemesh/venv"
[ -z "$COVER" ] || show "$BASE" "$stage/aemesh/base"
mount --bind "$FOLDER" "$stage/aemesh/folder"
mount --bind "$STICK" "$stage/aemesh/stick"
[ ! -d /sys/fs/cgroup ] || mount --rbind /sys/fs/cgroup "$stage/aemesh/cgroup"
mount --move "$stage" /mnt

# The kernel shows in /sys/class/net the interfaces of who mounted it; and its cgroups
# must be brought back.  A user namespace may not be allowed to: no harm.
if mount -t sysfs lab /sys 2>/dev/null; then
    [ ! -d /sys/fs/cgroup ] || mount --rbind /mnt/aemesh/cgroup /sys/fs/cgroup
fi

if [ -n "$COVER" ]; then
    mount -t tmpfs -o mode=755 lab "$COVER"
    mkdir -p "$BASE"
    mount --bind /mnt/aemesh/base "$BASE"
fi
for place in /tmp /var/tmp /dev/shm; do
    mount -t tmpfs -o mode=1777 lab "$place"
done
if [ -d /media ]; then
    mount -t tmpfs -o mode=755 lab /media
    mkdir /media/stick
    mount --bind /mnt/aemesh/stick /media/stick
fi
mount -t tmpfs -o mode=755 lab /run
mkdir -p "$FOLDER" /run/lock /run/user "/run/user/$USER_ID"
mount --bind /mnt/aemesh/folder "$FOLDER"
chmod 1777 /run/lock
chmod 700 "/run/user/$USER_ID"
[ "$MANY_USERS" = no ] || chown "$USER_ID:$USER_ID" "/run/user/$USER_ID"

for file in "$FOLDER"/etc/*; do
    # resolv.conf is often a link into /run, where it went away just now.
    place=$(readlink -m "/etc/${file##*/}")
    [ -e "$place" ] || case $place in
        /run/*) mkdir -p "${place%/*}"; : > "$place" ;;
        *) continue ;;
    esac
    mount --bind "$file" "$place"
done

if [ "$MANY_USERS" = yes ] &&
    ! setpriv --reuid "$USER_ID" --regid "$USER_ID" --clear-groups test -x "$PYTHON"
then
    echo "an ordinary user cannot run $PYTHON here: make the environment with" \
        "an interpreter everybody can read, as in /usr/bin/python3 -m venv .venv" >&2
    exit 1
fi

echo ready
exec cat > /dev/null 2>&1
