"""To and from a bucket: copies, published formats, a bucket on loopback, a metered network."""
