#!/usr/bin/env bash
# Mounts the volume of the store: `mount_volume.sh DEVICE FOLDER`. A blank volume is given a file system; whatever else it holds is left as it is.
set -euo pipefail
device=$1 folder=$2

for _ in $(seq 60); do
  [ -b "$device" ] && break
  sleep 1
done
[ -b "$device" ] || { echo "mount_volume: $device is not a block device; attach the volume first" >&2; exit 2; }

if ! mountpoint -q "$folder"; then
  # With status 2, blkid has found nothing; with any other it has found something, or could not look.
  status=0
  sudo blkid -p "$device" > /dev/null || status=$?
  if [ "$status" = 2 ]; then
    sudo mkfs.ext4 -q "$device"
  fi
  sudo mkdir -p "$folder"
  sudo mount -o noatime,nodev,nosuid "$device" "$folder"
fi
sudo install -d -m 700 -o "$(id -un)" -g "$(id -gn)" "$folder/raysp" "$folder/gcs"
