#!/usr/bin/env bash
# Machines of our own for test_cluster.py: a laptop and hosts with sshd on one wire, each with its own network,
# processes, /tmp, /dev/shm and home; of this machine they see only what is installed, read-only. Needs root.
#
#   cluster_hosts.sh FOLDER [PATH ...]    PATH: what the machines see beside /usr, /etc and the like
#
# Takes "start NAME ADDRESS" and "pull NAME" (the plug) from its standard input and answers each with a line; when
# that ends, everything is gone. FOLDER holds, for all: passwd, hosts, key (of sshd), shared/, repository/; for each: NAME/home/.
set -euo pipefail

bind() { # a path of this machine, read-only, where root has it too
  mount --bind "$1" "$2"
  mount -o remount,bind,ro "$2"
}

furnish() { # the file system of one machine, under $FOLDER/NAME/root
  local root=$FOLDER/$1/root path
  mkdir -p "$root"
  mount -t tmpfs -o mode=755,size=1g machine "$root"
  for path in /*; do
    case $path in
      /boot | /dev | /home | /lost+found | /media | /mnt | /proc | /root | /run | /srv | /sys | /tmp | /var) ;;
      *)
        if [ -L "$path" ]; then
          cp -P "$path" "$root/"
        elif [ -d "$path" ]; then
          mkdir "$root$path"
          bind "$path" "$root$path"
        fi
        ;;
    esac
  done
  mkdir -p "$root"/{dev,proc,repository,run/sshd,shared,sys,tmp,user,var/tmp}
  chmod 1777 "$root/tmp" "$root/var/tmp"
  for path in "${PATHS[@]}"; do
    if [ ! -e "$root$path" ]; then
      mkdir -p "$root$path"
      bind "$path" "$root$path"
    fi
  done
  for path in passwd hosts; do
    bind "$FOLDER/$path" "$root/etc/$path"
  done
  touch "$root/key"
  bind "$FOLDER/key" "$root/key"
  bind "$FOLDER/repository" "$root/repository"
  mount --bind "$FOLDER/shared" "$root/shared"
  mount --bind "$FOLDER/$1/home" "$root/user"
  mount -t proc proc "$root/proc"
  mount --rbind /sys "$root/sys"
  mount --rbind /dev "$root/dev"
  mount -t tmpfs -o mode=1777,size=12g shm "$root/dev/shm"
}

host() { # NAME ADDRESS: what a host does from power-on; its e0 appears as it is plugged in
  mount --make-rprivate /
  hostname "$1"
  furnish "$1"
  until ip link show e0 > /dev/null 2>&1; do sleep 0.05; done
  ip link set lo up
  ip address add "$2/24" dev e0
  ip link set e0 up
  ip route add default via "$LAPTOP"
  exec chroot "$FOLDER/$1/root" /usr/sbin/sshd -D -e -f /dev/null -h /key -o PasswordAuthentication=no -o UsePAM=no \
    -o KbdInteractiveAuthentication=no -o StrictModes=no
}

start() { # NAME ADDRESS
  unshare --mount --uts --ipc --net --pid --fork --kill-child=SIGKILL bash "$SCRIPT" "$FOLDER" "${PATHS[@]}" \
    < <(echo "host $1 $2") > "$FOLDER/$1/log" 2>&1 &
  running[$1]=$!
  until [ "$(readlink "/proc/${running[$1]}/ns/net")" != "$(readlink /proc/$$/ns/net)" ]; do sleep 0.02; done
  ip link add "$1" type veth peer name e0 netns "${running[$1]}"
  ip link set "$1" master wire up
}

pull() { # NAME: the wire first, so that no connection is closed in good order
  ip link delete "$1"
  kill -9 "${running[$1]}"
  wait "${running[$1]}" || true
}

SCRIPT=$(realpath "$0")
FOLDER=$1
PATHS=("${@:2}")
LAPTOP=10.77.0.254
declare -A running

read -r verb name address || exit 0
case $verb in
  host) host "$name" "$address" ;;
  laptop)
    ip link set lo up
    ip link add wire type bridge
    ip address add "$LAPTOP/24" dev wire
    ip link set wire up
    furnish laptop
    echo laptop
    while read -r verb name address; do
      "$verb" "$name" $address
      echo "$verb $name"
    done
    ;;
esac
