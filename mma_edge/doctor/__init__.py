"""What `mma-edge doctor` looks at: this machine, the packages, the engines, the devices, each feature."""
