"""Images and layers: names, configs, manifests, tar <-> tree, and the store on disk.

Follows the OCI image-spec 1.1 (https://github.com/opencontainers/image-spec).
"""
