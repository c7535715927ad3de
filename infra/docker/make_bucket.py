"""Creates the bucket that SAFELIGHT_STORE names unless it is there; does nothing without one."""

import sys
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from safelight.settings import settings

MISSING = ("404", "NoSuchBucket")


def main() -> int:
    """Look first: a key that may only use the bucket needs no right to create one."""
    configured = settings()
    if not configured.store:
        return 0
    bucket = urlsplit(configured.store).netloc
    access, secret = configured.s3_access_key, configured.s3_secret_key
    client = boto3.client(
        "s3",
        endpoint_url=configured.s3_endpoint_url,
        region_name=configured.s3_region,
        aws_access_key_id=access.get_secret_value() if access else None,
        aws_secret_access_key=secret.get_secret_value() if secret else None,
        config=Config(s3={"addressing_style": "path" if configured.s3_path_style else "auto"}),
    )
    try:
        client.head_bucket(Bucket=bucket)
    except ClientError as error:
        if error.response["Error"]["Code"] not in MISSING:
            raise
        client.create_bucket(Bucket=bucket)
        sys.stdout.write(f"created bucket {bucket}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
