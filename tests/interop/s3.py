"""The other side of tests/interop.sh: a stock S3 client that looks at what tapline has stored.

The bucket, the endpoint and the keys are in the environment: BUCKET, AWS_ENDPOINT_URL,
AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_DEFAULT_REGION.

    s3.py bucket                  makes the bucket, when the server answers, within a minute
    s3.py left PREFIX             prints every object and open upload below PREFIX
    s3.py parts PREFIX            returns as soon as an upload below PREFIX has a part
    s3.py abort PREFIX            aborts every open upload below PREFIX
    s3.py read PREFIX FILE…       every archive below PREFIX, with tar alone, is one of FILEs
    s3.py allow WHO OWNER ACTION… lets WHO do this and nothing else, and OWNER do everything
    s3.py versioned               makes the bucket, one that keeps versions and locks objects
    s3.py locked PREFIX COUNT     there are COUNT versions below PREFIX, and none can be deleted
    s3.py versions PREFIX         prints every version and mark of deletion below PREFIX
"""

import hashlib
import json
import os
import subprocess
import sys
import time
from collections import defaultdict

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

BUCKET = os.environ["BUCKET"]
S3 = boto3.client(
    "s3", config=Config(s3={"addressing_style": "path"}, retries={"max_attempts": 1})
)


def patiently(seconds, what, attempt):
    """Calls `attempt` until it returns something."""
    end = time.monotonic() + seconds
    while True:
        try:
            if found := attempt():
                return found
            why = "not yet"
        except (BotoCoreError, ClientError) as error:
            why = error
            if "NotImplemented" in str(error):
                sys.exit(f"{what}: {why}")
        if time.monotonic() > end:
            sys.exit(f"{what}: {why}, after {seconds} s")
        time.sleep(0.2)


def bucket():
    def attempt():
        try:
            return S3.create_bucket(Bucket=BUCKET)
        except ClientError as error:
            if "BucketAlready" in str(error):
                return True
            raise

    patiently(60, "making the bucket", attempt)


def objects(prefix):
    pages = S3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
    return [found["Key"] for page in pages for found in page.get("Contents", [])]


def uploads(prefix):
    found = S3.list_multipart_uploads(Bucket=BUCKET, Prefix=prefix).get("Uploads", [])
    return [(upload["Key"], upload["UploadId"]) for upload in found]


def left(prefix):
    for key in objects(prefix):
        print("object", key)
    for key, upload in uploads(prefix):
        print("open upload", key, upload)


def parts(prefix):
    def attempt():
        return any(
            S3.list_parts(Bucket=BUCKET, Key=key, UploadId=upload).get("Parts")
            for key, upload in uploads(prefix)
        )

    patiently(60, "waiting for a part", attempt)


def abort(prefix):
    for key, upload in uploads(prefix):
        S3.abort_multipart_upload(Bucket=BUCKET, Key=key, UploadId=upload)


def sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read(prefix, *files):
    wanted = {sha256(file): file for file in files}
    archives = defaultdict(list)
    for key in objects(prefix):
        if not key.endswith("manifest.json") and "/~tapline/" not in key:
            archives[key.rsplit("/", 1)[0]].append(key)
    for volumes in archives.values():
        how = "--zstd" if ".zst" in volumes[0] else "-z" if ".gz" in volumes[0] else None
        command = ["tar", "-xO", *filter(None, [how])]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as tar:
            # tar writes while it is fed; a second pair of hands takes what it writes.
            hasher = subprocess.Popen(["sha256sum"], stdin=tar.stdout, stdout=subprocess.PIPE)
            tar.stdout.close()
            for volume in sorted(volumes):
                body = S3.get_object(Bucket=BUCKET, Key=volume)["Body"]
                for chunk in body.iter_chunks(1 << 20):
                    tar.stdin.write(chunk)
            tar.stdin.close()
            digest = hasher.communicate()[0].decode().split()[0]
        if tar.returncode or digest not in wanted:
            sys.exit(f"{volumes[0]}: tar exits with {tar.returncode}, and reads what was not dumped")
    if not archives:
        sys.exit(f"no archive below {prefix}")
    print(len(archives), "archives read")


def allow(who, owner, *actions):
    # An object belongs to who put it, who may therefore do everything with it, and the bucket's
    # owner nothing: both is to be said (AWS has abolished that, other servers have not).
    def rule(effect, whom, **what):
        resources = {"Resource": [f"arn:aws:s3:::{BUCKET}", f"arn:aws:s3:::{BUCKET}/*"]}
        return {"Effect": effect, "Principal": {"AWS": [whom]}, **resources, **what}

    rules = [
        rule("Allow", who, Action=list(actions)),
        rule("Deny", who, NotAction=list(actions)),
        rule("Allow", owner, Action="s3:*"),
    ]
    document = {"Version": "2012-10-17", "Statement": rules}
    S3.put_bucket_policy(Bucket=BUCKET, Policy=json.dumps(document))


def versioned():
    S3.create_bucket(Bucket=BUCKET, ObjectLockEnabledForBucket=True)
    # Where the one does not come with the other.
    enabled = {"Status": "Enabled"}
    S3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration=enabled)


def locked(prefix, count):
    found = S3.list_object_versions(Bucket=BUCKET, Prefix=prefix).get("Versions", [])
    if len(found) != int(count):
        sys.exit(f"{len(found)} versions below {prefix}")
    for version in found:
        try:
            S3.delete_object(Bucket=BUCKET, Key=version["Key"], VersionId=version["VersionId"])
        except ClientError as error:
            if error.response["Error"]["Code"] in ("AccessDenied", "ObjectLocked"):
                continue
            raise
        sys.exit(f"{version['Key']} was deleted for good")


def versions(prefix):
    pages = S3.get_paginator("list_object_versions").paginate(Bucket=BUCKET, Prefix=prefix)
    for page in pages:
        for kind in ("Versions", "DeleteMarkers"):
            for found in page.get(kind, []):
                print(kind, found["Key"], found["VersionId"])


if __name__ == "__main__":
    public = (bucket, left, parts, abort, read, allow, versioned, locked, versions)
    commands = {f.__name__: f for f in public}
    commands[sys.argv[1].replace("-", "_")](*sys.argv[2:])
