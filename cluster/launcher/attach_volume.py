"""Attach the EBS volume with this name to the EC2 instance that runs this: `attach_volume.py NAME`. Writes its device to `volume_device` beside this file.

A volume that another instance has is not taken from it: two heads with one store are refused.
"""

import sys
import urllib.request
from pathlib import Path
from typing import Any

import boto3

#: Where an instance finds out about itself.
METADATA = "http://169.254.169.254/latest"


def about_instance(what: str) -> str:
    """A value of the instance's metadata."""
    asked = urllib.request.Request(f"{METADATA}/api/token", method="PUT", headers={"X-aws-ec2-metadata-token-ttl-seconds": "60"})
    with urllib.request.urlopen(asked, timeout=10) as answer:
        token = answer.read().decode()
    asked = urllib.request.Request(f"{METADATA}/meta-data/{what}", headers={"X-aws-ec2-metadata-token": token})
    with urllib.request.urlopen(asked, timeout=10) as answer:
        return answer.read().decode()


def attach(ec2: Any, name: str, instance: str) -> str:
    """Attach the volume unless the instance has it; the volume's id. SystemExit if there is not exactly one, or if another instance has it."""
    found = ec2.describe_volumes(Filters=[{"Name": "tag:Name", "Values": [name]}])["Volumes"]
    if len(found) != 1:
        raise SystemExit(f"attach_volume: {len(found)} volumes have the tag Name={name}; exactly one must have it")
    volume = found[0]
    holders = [attachment["InstanceId"] for attachment in volume["Attachments"]]
    if holders and holders != [instance]:
        raise SystemExit(f"attach_volume: {volume['VolumeId']} is attached to {', '.join(holders)}; end that head first")
    if not holders:
        ec2.attach_volume(VolumeId=volume["VolumeId"], InstanceId=instance, Device="/dev/sdf")
        ec2.get_waiter("volume_in_use").wait(VolumeIds=[volume["VolumeId"]])
    return volume["VolumeId"]


def device(volume: str) -> str:
    """The path of a volume's device on an instance of the Nitro kind."""
    return f"/dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_{volume.replace('-', '')}"


if __name__ == "__main__":
    client = boto3.client("ec2", region_name=about_instance("placement/region"))
    attached = attach(client, sys.argv[1], about_instance("instance-id"))
    Path(__file__).with_name("volume_device").write_text(device(attached), encoding="utf-8")
