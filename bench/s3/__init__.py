"""What is in a bucket, and how does it get here and back? Amazon's S3 and whatever speaks its protocol."""
